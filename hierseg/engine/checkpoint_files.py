"""Checkpoint files of any origin: read whole and without running code, or refused in one error.

MMEngine reads every checkpoint and every pretrained weight through two functions; within :func:`safe_loading` both
are those of this module.
"""

from __future__ import annotations

import os
import pickle
import re
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse

import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader, find_latest_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import get_torch_safe_globals

from hierseg.errors import ConfigError

UNSAFE, SAFE = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
YES = ('1', 'y', 'yes', 'true', 'on')
ZIP = b'PK\x03\x04'
LEGACY = b'\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19'  # how torch.save began before PyTorch 1.6
UNPICKLING = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What unpickling damaged bytes may raise, by Python's documentation and torch's source."""

_said: set[str] = set()


def is_trusting() -> bool:
    """Whether the environment says that checkpoints may run code: ``1``, ``yes``, ``true`` or ``on``, nothing else."""
    return os.environ.get(UNSAFE, '').strip().lower() in YES


def check_checkpoint(checkpoint: str) -> str:
    """Gives the checkpoint back, if it is a file or an address.

    Raises:
        ConfigError: It is neither.
    """
    if '://' not in checkpoint and not os.path.isfile(checkpoint):
        what = 'the checkpoint is a folder' if os.path.isdir(checkpoint) else 'the checkpoint does not exist'
        raise ConfigError(what, where=checkpoint, fix='Check the path.')
    return checkpoint


def latest_checkpoint(work_dir: str | Path) -> str | None:
    """The checkpoint that ``last_checkpoint`` of a work directory names; None where there is no such file.

    Raises:
        ConfigError: The file names none that exists.
    """
    note = Path(work_dir) / 'last_checkpoint'
    fix = f'Name one with --resume CHECKPOINT, or remove {note} to begin anew.'
    try:
        named = find_latest_checkpoint(str(work_dir))
    except (OSError, UnicodeDecodeError) as error:
        what = f'the name of the latest checkpoint cannot be read: {error}'
        raise ConfigError(what, where=str(note), fix=fix) from error
    if named is None:
        return None
    try:
        return check_checkpoint(named)
    except ConfigError as error:
        what = f'it names no checkpoint: {error.what} ({named[:200]!r})' if named else 'the file is empty'
        raise ConfigError(what, where=str(note), fix=fix) from error


def read_checkpoint_file(file: str | Path | BinaryIO, map_location: Any = None) -> dict[str, Any]:
    """Reads what ``torch.save`` wrote, verifying the checksums of its parts.

    Args:
        file: The path, or an open file.
        map_location: As of ``torch.load``.

    Raises:
        ConfigError: The file is damaged or no checkpoint, or holds more than tensors and plain values.
    """
    where = os.fspath(file) if isinstance(file, (str, os.PathLike)) else ''
    trusting = is_trusting()
    if trusting and UNSAFE not in _said:
        _said.add(UNSAFE)
        print_log(f'{UNSAFE} is set: checkpoints are unpickled without care and can run code', 'current', 30)
    torch.serialization.add_safe_globals(_allowed())
    try:
        if where:
            _require_whole(where)
        found = torch.load(file, map_location=map_location, weights_only=not trusting)
    except (*UNPICKLING, zipfile.BadZipFile) as error:
        if isinstance(error, ConfigError):
            raise
        raise _explained(error, where) from error
    if not isinstance(found, dict):
        what = f'the file holds a {type(found).__name__}, not the weights of a model'
        raise ConfigError(what, where=where, fix='Name a checkpoint of a training.')
    return found


def _require_whole(path: str) -> None:
    """Refuses a file that is damaged, cut short or of another kind before torch reads it.

    Torch does not verify checksums, and unpacks whatever a compressed member claims to hold.
    """
    with open(path, 'rb') as file:
        start = file.read(len(LEGACY))
    kind = 'Name a file that torch.save wrote, such as epoch_12.pth.'
    if not start:
        raise ConfigError('the checkpoint is empty', where=path, fix='Copy it again, or use an earlier one.')
    if start == LEGACY:
        return
    if not start.startswith(ZIP):
        raise ConfigError(f'the file is no checkpoint: it begins with {start[:8]!r}', where=path, fix=kind)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if not any(member.filename.endswith('/data.pkl') for member in members):
            raise ConfigError('the file is a zip archive, but no checkpoint', where=path, fix=kind)
        if min(member.header_offset for member in members) > 0:
            # Python counts places from where the archive begins, torch from where the file does.
            raise ConfigError('the checkpoint is damaged: something lies before its archive', where=path, fix=kind)
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if packed or sum(member.file_size for member in members) > os.path.getsize(path):
            what = 'the checkpoint has compressed members, which torch.save never writes'
            raise ConfigError(what, where=path, fix=kind)
        damaged = archive.testzip()
    if damaged is not None:
        what = f'the checkpoint is damaged: {damaged} does not have its checksum'
        raise ConfigError(what, where=path, fix='Copy it again, or use an earlier one.')


def _explained(error: BaseException, where: str) -> ConfigError:
    """The error of a loader as ours: one line, without escape codes and advice for programmers."""
    text = re.sub(r'\x1b\[[0-9;]*m', '', str(error))
    refused = re.search(r'GLOBAL (\S+) (?:was not an allowed|whose module)|unrecognized function (.+)', text)
    if refused:
        named = next(filter(None, refused.groups()))
        return ConfigError(
            f'the checkpoint cannot be loaded safely: it holds {named}, and loading that can run code',
            where=where,
            fix='If you trust whoever made it, write its weights alone: '
            f"torch.save({{'state_dict': torch.load({where!r}, weights_only=False)['state_dict']}}, 'weights.pth'), "
            f'best where there is nothing to lose. {UNSAFE}=1 loads it as it is.',
        )
    reason = text.rpartition('WeightsUnpickler error: ')[2].strip().partition('\n')[0] or type(error).__name__
    return ConfigError(
        f'the checkpoint cannot be read: {reason[:300]}', where=where, fix='Copy it again, or use an earlier one.'
    )


def _history_method(owner: Any, name: str) -> Any:
    """Stands for ``getattr`` in checkpoints, which need it for the methods of MMEngine's ``HistoryBuffer`` alone.

    The real one leads from any object to the globals of its module, and so around safe loading.
    """
    if owner is HistoryBuffer and isinstance(name, str) and not name.startswith('_'):
        return getattr(owner, name)
    raise pickle.UnpicklingError('GLOBAL builtins.getattr was not an allowed global')


# By these names torch finds what stands for a global.
_history_method.__module__, _history_method.__qualname__, _history_method.__name__ = 'builtins', 'getattr', 'getattr'


def _allowed() -> list[Any]:
    """What the checkpoints of MMEngine hold beside tensors."""
    return [_history_method if allowed is getattr else allowed for allowed in get_torch_safe_globals()]


def _fetched(url: str, model_dir: str | None, progress: bool) -> Path:
    """The file of an address in torch's folder, where it is kept.

    Raises:
        ConfigError: The server cannot be reached, or does not have it.
    """
    folder = Path(model_dir or Path(torch.hub.get_dir()) / 'checkpoints')
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / Path(urlparse(url).path).name
    try:
        if not path.exists():
            torch.hub.download_url_to_file(url, str(path), progress=progress)
    except (OSError, HTTPException, ValueError) as error:
        raise ConfigError(
            f'the weights cannot be fetched: {getattr(error, "reason", error)}',
            where=url,
            fix=f'Copy the file into {folder}, name a file in its place, or train without: '
            'init_cfg=None, frozen_stages=-1 and norm_eval=False of the backbone.',
        ) from error
    return path


@contextmanager
def safe_loading() -> Iterator[None]:
    """Lets MMEngine load checkpoints by :func:`read_checkpoint_file`, and ends the process group afterwards.

    MMEngine's own way falls back to unpickling arbitrary objects, which can run code, where torch's safe loader
    refuses a checkpoint. The environment tells other callers of ``torch.load``, and processes begun within, the same.
    """
    before = {name: os.environ.get(name) for name in (UNSAFE, SAFE)}
    functions = mmengine_checkpoint._safe_torch_load, mmengine_checkpoint.load_url
    schemes = CheckpointLoader._schemes
    of_files = schemes['']

    def read(file: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        found = read_checkpoint_file(file, map_location)
        if isinstance(found.get('meta'), dict):
            # A resuming runner would run this text as a program, for the sake of a key that no release writes any more.
            found['meta'].pop('config', None)
        return found

    def fetch(url: str, model_dir: Any = None, map_location: Any = None, progress: bool = True) -> dict[str, Any]:
        return read(_fetched(url, model_dir, progress), map_location)

    def load_from_local(filename: str, map_location: Any) -> dict[str, Any]:  # MMEngine's log names it
        return read(check_checkpoint(os.path.expanduser(filename)), map_location)

    trusting = is_trusting()
    os.environ.update({UNSAFE: '1' if trusting else '0', SAFE: '0' if trusting else '1'})
    mmengine_checkpoint._safe_torch_load, mmengine_checkpoint.load_url = read, fetch
    schemes[''] = load_from_local
    try:
        yield
    finally:
        mmengine_checkpoint._safe_torch_load, mmengine_checkpoint.load_url = functions
        schemes[''] = of_files
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
