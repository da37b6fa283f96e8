"""Config files: read with all that they build on, or refused in one error that names file and line."""

from __future__ import annotations

import ast
import json
import os
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config

from hierseg.errors import ConfigError, HiersegError

SUFFIXES = ('.py', '.json', '.yaml', '.yml')
DEEPEST = 100
"""Files that build on each other; lists and mappings within each other in YAML.

For thousands, the C library of YAML takes minutes, and then the stack.
"""
MOST_VALUES = 1_000_000
"""Values of a config in YAML, with aliases filled in: ten lines of them can stand for billions."""


class FormattedOnce(Config):
    """A config that is formatted anew only when it has changed.

    MMEngine asks for the text four times at the start of a run and again for every checkpoint, and formatting the
    ensemble's takes seconds.
    """

    @classmethod
    def of(cls, config: Config) -> FormattedOnce:
        """The same config; both share their values."""
        other = cls.__new__(cls)
        vars(other).update(vars(config))
        return other

    @property
    def pretty_text(self) -> str:
        """The config as formatted Python."""
        content = repr(self.to_dict())
        if vars(self).get('_formatted', ('', ''))[0] != content:
            vars(self)['_formatted'] = content, super().pretty_text
        text: str = vars(self)['_formatted'][1]
        return text


def read_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Reads a config file with everything that it builds on, which runs it as a program.

    Args:
        path: The file.
        options: Values by dotted key that override the config's.

    Raises:
        ConfigError: The file, or one that it builds on, does not exist or cannot be read, or has no place for an
            option.
    """
    if not os.path.isfile(path):
        raise ConfigError('the config file does not exist', where=str(path), fix='Check the path.')
    _check_file(Path(path), ())
    try:
        config = Config.fromfile(str(path))
    except HiersegError:
        raise
    except Exception as error:  # a config is a program, which may raise anything
        raise ConfigError(f'the config cannot be read: {_reason(error)}', where=_place(error, path)) from error
    try:
        config.merge_from_dict(dict(options or {}))
    except (AssertionError, AttributeError, LookupError, TypeError) as error:
        what = f'the options {", ".join(options or ())} do not fit the config: {_reason(error)}'
        raise ConfigError(what, where=str(path), fix='Print the config with tools/misc/print_config.py.') from error
    return config


def load_config(
    path: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    work_dir: str | Path | None = None,
    launcher: str = 'none',
) -> Config:
    """Reads a config and settles the command line's arguments, which :func:`hierseg.apis.train` explains.

    Errors are those of :func:`read_config`.
    """
    config = FormattedOnce.of(read_config(path, options))
    config.launcher = launcher
    if work_dir is not None:
        config.work_dir = str(work_dir)
    elif config.get('work_dir') is None:
        config.work_dir = os.path.join('./work_dirs', Path(path).stem)
    return config


def _check_file(path: Path, above: Sequence[Path]) -> None:
    """Looks at a file and those that it names as ``_base_`` without running them.

    MMEngine follows a circle of files for half a minute, and does not say in which file and line a mistake is.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError('the file is no config', where=str(path), fix=f'Name one of {", ".join(SUFFIXES)}.')
    try:
        named, line = _bases(path)
    except (OSError, RecursionError, MemoryError, ValueError, SyntaxError, yaml.YAMLError) as error:
        if isinstance(error, HiersegError):
            raise
        at = _line(error)
        where = f'{path}, line {at}' if at else str(path)
        raise ConfigError(f'the config cannot be read: {_reason(error)}', where=where) from error
    where = f'{path}, line {line}' if line else str(path)
    for name in named:
        if '::' in name or '{{' in name:  # of another package, or filled in by MMEngine
            continue
        base = path.parent / name
        if not os.path.isfile(base):
            raise ConfigError(f'the config builds on {base}, which does not exist', where=where, fix='Check _base_.')
        if any(base.samefile(file) for file in (*above, path)):
            circle = ' → '.join(map(str, (*above, path, base)))
            raise ConfigError(f'the config builds on itself: {circle}', where=where, fix='Take one _base_ out.')
        if len(above) == DEEPEST:
            raise ConfigError(f'more than {DEEPEST} configs build on each other', where=where, fix='Join some of them.')
        _check_file(base, (*above, path))


def _bases(path: Path) -> tuple[list[str], int | None]:
    """The names under ``_base_`` as far as they are plain text, and the line, of a readable file."""
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.py':
        for statement in ast.parse(text, filename=str(path)).body:
            if isinstance(statement, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == '_base_' for target in statement.targets
            ):
                value = statement.value
                parts = value.elts if isinstance(value, (ast.List, ast.Tuple)) else [value]
                names = [part.value for part in parts if isinstance(part, ast.Constant)]
                return [name for name in names if isinstance(name, str)], statement.lineno
        return [], None
    if path.suffix == '.json':
        found = json.loads(text)
        is_mapping = isinstance(found, dict)
        base = found.get('_base_', []) if is_mapping else []
        names, line = base if isinstance(base, list) else [base], None
    else:
        _require_bounded(text, path)
        # Nodes, not values: MMEngine builds what tags such as !!python/tuple stand for.
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
        is_mapping = isinstance(root, yaml.MappingNode)
        entries = root.value if is_mapping else []
        base = next((value for key, value in entries if key.value == '_base_'), None)
        nodes = base.value if isinstance(base, yaml.SequenceNode) else [base] if base is not None else []
        names, line = [node.value for node in nodes], base and base.start_mark.line + 1
    if not is_mapping:
        what = 'the config is one value, not keys with values'
        raise ConfigError(what, where=str(path), fix='Begin with a key such as model, as the files in configs/ do.')
    return [name for name in names if isinstance(name, str)], line


def _require_bounded(text: str, path: Path) -> None:
    """Refuses lists within lists without end, and a few lines whose aliases stand for millions of values."""
    sizes: dict[str | None, int] = {}  # of what an anchor names, aliases filled in
    open_sizes: list[int] = [0]
    anchors: list[str | None] = []
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        where = f'{path}, line {event.start_mark.line + 1}'
        if isinstance(event, yaml.CollectionStartEvent):
            open_sizes.append(1)
            anchors.append(event.anchor)
            if len(anchors) > DEEPEST:
                raise ConfigError(
                    f'the config has more than {DEEPEST} lists and mappings within each other', where=where
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            size = sizes[anchors.pop()] = open_sizes.pop()
            open_sizes[-1] += size
        elif isinstance(event, yaml.AliasEvent):
            open_sizes[-1] += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor] = 1
            open_sizes[-1] += 1
        if open_sizes[-1] > MOST_VALUES:
            what = f'with its aliases filled in, the config has more than {MOST_VALUES:,} values'
            raise ConfigError(what, where=where, fix='Write out what the aliases (*name) are to stand for.')


def _line(error: BaseException) -> int | None:
    """The line of a text that could not be parsed, from 1."""
    if isinstance(error, (SyntaxError, json.JSONDecodeError)):
        return error.lineno
    if isinstance(error, UnicodeDecodeError):
        return error.object[: error.start].count(b'\n') + 1
    mark = getattr(error, 'problem_mark', None)  # of YAML
    return None if mark is None else mark.line + 1


def _reason(error: BaseException) -> str:
    """The error in one line; of an import that failed within MMEngine's, the first that did."""
    while isinstance(error, ImportError) and (before := error.__cause__ or error.__context__):
        error = before
    said = getattr(error, 'msg', None) or getattr(error, 'problem', None) or str(error)
    if isinstance(error, (RecursionError, MemoryError)):
        said = 'it is nested too deeply'
    return f'{type(error).__name__}: {str(said).strip().partition(chr(10))[0][:300]}'


def _place(error: BaseException, path: str | Path) -> str:
    """File and line of the innermost file that was running, else the file that was asked for."""
    frames = traceback.extract_tb(error.__traceback__)
    running = [frame for frame in frames if frame.name == '<module>' and frame.filename.endswith('.py')]
    return f'{running[-1].filename}, line {running[-1].lineno}' if running else str(path)
