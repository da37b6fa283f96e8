"""What an exported model says about itself, checked before anything is computed by it, and the seal on its file."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from typing import Any

from hierseg.errors import ConfigError

VERSION = 1
PREFIX = 'hierseg.'  # of the names of what an export says about itself, each a document of JSON
RULES = ('back_off', 'leaf', 'distance')
MOST = 2**14
"""The longest side of a network's input, in pixels, and the largest stride."""
FIX = 'Export the model again, or copy the file again.'
SEAL = PREFIX + 'crc32'


def sealed(content: bytes) -> bytes:
    """An ONNX file with the checksum of all before it as its last entry of metadata.

    Files in the form of protocol buffers that follow each other are one file, so that nothing has to be parsed.
    """
    return content + _entry(zlib.crc32(content))


def _entry(checksum: int) -> bytes:
    """``metadata_props``, field 14 of a model, of a key, field 1, and a value, field 2."""
    key, value = SEAL.encode(), json.dumps(f'{checksum:08x}').encode()
    entry = b'\x0a%c%b\x12%c%b' % (len(key), key, len(value), value)
    return b'\x72%c%b' % (len(entry), entry)


def check_seal(path: str) -> None:
    """Refuses a file whose content is not what its checksum says; files without one are let through.

    Raises:
        ConfigError: It is damaged.
    """
    length, checksum = os.path.getsize(path) - len(_entry(0)), 0
    with open(path, 'rb') as file:
        for start in range(0, max(length, 0), 2**20):
            checksum = zlib.crc32(file.read(min(2**20, length - start)), checksum)
        end = file.read()
    expected = _entry(checksum)
    if end != expected and end[:-11] == expected[:-11]:  # all but the digits
        raise ConfigError('the exported model is damaged: it does not have its checksum', where=path, fix=FIX)


def read_settings(found: Mapping[str, str], where: str) -> dict[str, Any]:
    """The metadata of a file of ``hierseg export`` by name; docs/export.md explains each.

    Args:
        found: Texts by name, others' too.
        where: The file, for the message.

    Raises:
        ConfigError: The file is none of this version, or a value is missing or impossible.
    """
    settings: dict[str, Any] = {}
    for name, text in found.items():
        if name.startswith(PREFIX):
            try:
                settings[name.removeprefix(PREFIX)] = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ConfigError(f'{name} of the exported model is no JSON', where=where, fix=FIX) from error
    if settings.get('version') != VERSION:
        what = f'expected an export of version {VERSION}, found {settings.get("version", "none")}'
        raise ConfigError(what, where=where, fix='Make it with the hierseg that is installed here.')
    size, decision = settings.get('input_size'), settings.get('decision')
    right = {
        'input_size': isinstance(size, list) and len(size) == 2 and all(_is_length(side) for side in size),
        'padding': _are_numbers(settings.get('padding'), 3),
        'size_divisor': _is_length(settings.get('size_divisor')),
        'mask_stride': _is_length(settings.get('mask_stride')),
        'mask_threshold': _are_numbers([settings.get('mask_threshold')], 1),
        'decision': isinstance(decision, dict)
        and decision.get('rule') in RULES
        and _are_numbers([decision.get('threshold')], 1)
        and isinstance(decision.get('relative'), bool),
        'taxonomy': _is_taxonomy(settings.get('taxonomy')),
    }
    wrong = [PREFIX + name for name, is_right in right.items() if not is_right]
    if wrong:
        what = f'{", ".join(wrong)} of the exported model: missing or impossible'
        raise ConfigError(what, where=where, fix=FIX)
    return settings


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and 1 <= value <= MOST


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, (int, float)) and abs(value) < float('inf') for value in values)
    )


def _is_taxonomy(found: Any) -> bool:
    """Whether classes are named, have known parents, and none is above itself."""
    classes = found.get('classes') if isinstance(found, dict) else None
    if not isinstance(classes, list) or not classes:
        return False
    above: dict[str, list[Any]] = {}
    for entry in classes:
        if not (
            isinstance(entry, dict)
            and isinstance(entry.get('id'), str)
            and isinstance(entry.get('name'), str)
            and isinstance(entry.get('parents'), list)
            and all(isinstance(parent, str) for parent in entry['parents'])
        ):
            return False
        above[entry['id']] = entry['parents']
    done: set[str] = set()
    while ready := [name for name, parents in above.items() if name not in done and done.issuperset(parents)]:
        done.update(ready)
    return len(done) == len(classes)
