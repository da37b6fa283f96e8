"""Kinds of damage to a checkpoint, each made of a sound one."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hierseg.engine.checkpoint_files import read_checkpoint_file

Damage = Callable[[Path, Path], None]


def _bytes(change: Callable[[bytes], bytes]) -> Damage:
    return lambda sound, path: path.write_bytes(change(sound.read_bytes())) and None


def _content(change: Callable[[dict[str, Any]], Any]) -> Damage:
    return lambda sound, path: torch.save(change(read_checkpoint_file(sound, 'cpu')), path)


def _weights(change: Callable[[torch.Tensor], Any]) -> Damage:
    """Changes the first weights that are several floats."""

    def changed(whole: dict[str, Any]) -> dict[str, Any]:
        weights = whole['state_dict'].items()
        name = next(name for name, value in weights if value.is_floating_point() and value.numel() > 1)
        whole['state_dict'][name] = change(whole['state_dict'][name])
        return whole

    return _content(changed)


def _zip(sound: Path, path: Path) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.txt', 'text')


def _compressed(sound: Path, path: Path) -> None:
    with zipfile.ZipFile(sound) as old, zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))


def _flipped(sound: Path, path: Path) -> None:
    """One bit of the largest tensor."""
    with zipfile.ZipFile(sound) as archive:
        member = max(archive.infolist(), key=lambda member: member.file_size)
    content = bytearray(sound.read_bytes())
    content[member.header_offset + 30 + 64 + len(member.filename) + member.file_size // 2] ^= 1
    path.write_bytes(content)


def _twice(sound: Path, path: Path) -> None:
    """The file behind a damaged copy of itself: readers of archives differ in which of the two they read."""
    _flipped(sound, path)
    path.write_bytes(path.read_bytes() + sound.read_bytes())


class Hostile:
    """Makes a folder when it is unpickled without care."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.folder,)


class Reaching:
    """Goes from a harmless object to the globals of its module, which safe loading must not allow."""

    def __reduce__(self) -> tuple[object, ...]:
        from mmengine.logging import HistoryBuffer

        return getattr, (HistoryBuffer, '__init__')


KINDS: dict[str, Damage] = {
    'empty': _bytes(lambda _: b''),
    'half': _bytes(lambda content: content[: len(content) // 2]),
    'without its end': _bytes(lambda content: content[:-30]),
    'zeroed': _bytes(lambda content: bytes(len(content))),
    'zeroed half': _bytes(lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2)),
    'text': _bytes(lambda _: b'no weights\n' * 100),
    'a zip archive': _zip,
    'compressed': _compressed,
    'a flipped bit': _flipped,
    'twice': _twice,
    'a folder': lambda _, path: path.mkdir(),
    'a list': _content(lambda _: [1, 2, 3]),
    'a number': _content(lambda _: 3),
    'an object': lambda _, path: torch.save({'state_dict': {}, 'meta': Hostile(f'{path}.made')}, path),
    'a way around': lambda _, path: torch.save({'state_dict': {}, 'meta': Reaching()}, path),
    'old and hostile': lambda _, path: torch.save(Hostile(f'{path}.made'), path, _use_new_zipfile_serialization=False),
    'no weights': _content(lambda whole: {**whole, 'state_dict': {}}),
    'weights in a list': _content(lambda whole: {**whole, 'state_dict': [*whole['state_dict'].values()]}),
    'numbers for names': _content(lambda whole: {**whole, 'state_dict': dict(enumerate(whole['state_dict'].values()))}),
    'NaN': _weights(lambda value: torch.full_like(value, torch.nan)),
    'infinite': _weights(lambda value: torch.full_like(value, torch.inf)),
    'whole numbers': _weights(lambda value: value.long()),
    'complex': _weights(lambda value: value.to(torch.complex64)),
    'sparse': _weights(lambda value: value.to_sparse()),
    'of one value': _weights(lambda value: torch.zeros(1).expand(value.shape)),
    'meta in a list': _content(lambda whole: {**whole, 'meta': ['meta']}),
    'data in a list': _content(lambda whole: {**whole, 'meta': {**whole['meta'], 'dataset_meta': ['classes']}}),
}
"""All are refused by whatever takes all weights of a checkpoint."""

LACKS: dict[str, Damage] = {
    'no optimiser': _content(lambda whole: _without(whole, 'optimizer')),
    'no schedulers': _content(lambda whole: _without(whole, 'param_schedulers')),
    'no messages': _content(lambda whole: _without(whole, 'message_hub')),
    'fewer schedulers': _content(lambda whole: {**whole, 'param_schedulers': whole['param_schedulers'][:-1]}),
    'no iteration': _content(lambda whole: {**whole, 'meta': _without(whole['meta'], 'iter')}),
    'epoch of text': _content(lambda whole: {**whole, 'meta': {**whole['meta'], 'epoch': '1'}}),
    'weights alone': _content(lambda whole: {'state_dict': whole['state_dict']}),
    'a momentum of another shape': _content(lambda whole: _with_momentum(whole, torch.ones(1, 1, 7))),
    'a momentum of another parameter': _content(lambda whole: _with_momentum(whole, torch.ones(1), number=99)),
}
"""All are refused when a training shall go on."""


def _without(found: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != name}


def _with_momentum(whole: dict[str, Any], value: torch.Tensor, number: int = 0) -> dict[str, Any]:
    whole['optimizer']['state'][number] = {'momentum_buffer': value}
    return whole


def damaged(kind: str, sound: Path, folder: Path) -> Path:
    """A checkpoint with one kind of damage, or the sound one under the empty kind."""
    path = folder / 'damaged.pth'
    if kind:
        (KINDS | LACKS)[kind](sound, path)
    else:
        shutil.copy(sound, path)
    return path
