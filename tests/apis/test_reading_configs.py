"""Configs that cannot be read: one error with file and line for each kind."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hierseg.apis.configs import load_config, read_config
from hierseg.errors import ConfigError

# Each line stands for nine times as much as the one above.
MULTIPLIED = b'a0: &a0 [x]\n' + b''.join(
    b'a%d: &a%d [%s]\n' % (i, i, b', '.join([b'*a%d' % (i - 1)] * 9)) for i in range(1, 12)
)

KINDS: dict[str, tuple[str, bytes, str]] = {
    'not UTF-8': ('.py', b'a = 1\nb = "\xff"\n', ', line 2: the config cannot be read: UnicodeDecodeError'),
    'not Python': ('.py', b'a = 1\nb = = 2\n', ', line 2: the config cannot be read: SyntaxError: invalid syntax'),
    'with zeros': ('.py', b'a = 1\0\n', 'the config cannot be read: '),
    'not YAML': ('.yaml', b'a: 1\nb: [1,\n', ', line 3: the config cannot be read: ParserError'),
    'not JSON': ('.json', b'{"a": 1,\n "b": }', ', line 2: the config cannot be read: JSONDecodeError: Expecting'),
    'a list in JSON': ('.json', b'[1, 2]', ': the config is one value'),
    'text in YAML': ('.yml', b'text', ': the config is one value'),
    'empty YAML': ('.yml', b'', ': the config is one value'),
    'that raises': ('.py', b'a = 1\nb = a / 0\n', ', line 2: the config cannot be read: ZeroDivisionError: division'),
    'with a name that is not there': ('.py', b'a = 1\nb = c\n', ', line 2: the config cannot be read: NameError'),
    'with an import that is not there': (
        '.py', b'custom_imports = dict(imports=["not_there"])\n', 'ModuleNotFoundError: No module named',
    ),
    'without its base': ('.py', b'\n_base_ = ["gone.py"]\n', ', line 2: the config builds on '),
    'without its base in YAML': ('.yaml', b'a: 1\n_base_: gone.py\n', ', line 2: the config builds on '),
    'without its base of mmdet': ('.py', b'_base_ = "mmdet::gone.py"\n', ': the config cannot be read: '),
    'on itself': ('.py', b'_base_ = "config.py"\n', ', line 1: the config builds on itself: '),
    'on a folder': ('.py', b'_base_ = "."\n', ', line 1: the config builds on '),
    'deep in Python': ('.py', b'a = ' + b'[' * 1000 + b']' * 1000, 'the config cannot be read: '),
    'deep sums in Python': ('.py', b'a = ' + b'1+' * 20_000 + b'1', 'nested too deeply'),
    'deep in YAML': ('.yaml', b'a: ' + b'[' * 300_000, ', line 1: the config has more than 100 lists'),
    'deep blocks in YAML': ('.yaml', b'a: ' + b'- ' * 1000 + b'1', ''),
    'multiplied in YAML': ('.yaml', MULTIPLIED, ', line 7: with its aliases filled in, the config has'),
    'deep in JSON': ('.json', b'{"a": ' + b'[' * 300_000, 'nested too deeply'),
    'of another kind': ('.txt', b'a = 1', ': the file is no config'),
}  # fmt: skip


@pytest.mark.parametrize('kind', KINDS)
def test_one_error_names_file_and_line(kind: str, tmp_path: Path) -> None:
    suffix, content, expected = KINDS[kind]
    path = tmp_path / f'config{suffix}'
    path.write_bytes(content)
    start = time.process_time()
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value)
    assert '\n' not in str(caught.value)
    assert time.process_time() - start < 2


def test_the_file_that_is_wrong_is_named_not_the_one_on_it(tmp_path: Path) -> None:
    (tmp_path / 'child.py').write_text('_base_ = "base.py"\n')
    for text, line in (('a = 1\nb = [\n', 2), ('\n\na = 1 / 0\n', 3)):
        (tmp_path / 'base.py').write_text(text)
        with pytest.raises(ConfigError, match=rf'base\.py, line {line}: '):
            read_config(tmp_path / 'child.py')


def test_a_circle_of_two_is_shown(tmp_path: Path) -> None:
    (tmp_path / 'a.py').write_text('_base_ = "b.json"\n')
    (tmp_path / 'b.json').write_text('{"_base_": ["a.py"]}')
    with pytest.raises(ConfigError, match=r'b\.json: the config builds on itself: .*a\.py → .*b\.json → .*a\.py'):
        read_config(tmp_path / 'a.py')


def test_a_base_may_be_there_twice(tmp_path: Path) -> None:
    (tmp_path / 'a.yaml').write_text('_base_: [b.yaml, c.yaml]\nd: !!python/tuple [1, 2]\n')
    (tmp_path / 'b.yaml').write_text('b: 1\n')
    (tmp_path / 'c.yaml').write_text('c: 2\n')
    config = read_config(tmp_path / 'a.yaml')
    assert (config.b, config.c, config.d) == (1, 2, (1, 2))


def test_options_that_do_not_fit_are_named(tmp_path: Path) -> None:
    (tmp_path / 'config.py').write_text('a = [dict(b=1)]\n')
    assert read_config(tmp_path / 'config.py', {'a.0.b': 2}).a[0].b == 2
    with pytest.raises(ConfigError, match=r'config\.py: the options a\.3\.b do not fit the config'):
        load_config(tmp_path / 'config.py', options={'a.3.b': 2})
