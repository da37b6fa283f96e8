"""Exported models that are damaged, or whose metadata are impossible: one error each, before anything is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from exported_models import Exported

import hierseg
from hierseg.deploy import load_model
from hierseg.deploy.identity import sealed
from hierseg.errors import ConfigError

BYTES: dict[str, Callable[[bytes], bytes]] = {
    'empty': lambda content: b'',
    'half': lambda content: content[: len(content) // 2],
    'without its end': lambda content: content[:-5],
    'zeroed': lambda content: bytes(len(content)),
    'text': lambda content: b'no model\n' * 100,
    'a flipped bit': lambda content: _flipped(content, len(content) // 2),
    'a flipped bit near the end': lambda content: _flipped(content, len(content) - 60),
}


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize('kind', BYTES)
def test_damage_is_found_by_both_doors(kind: str, exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / 'damaged.onnx'
    path.write_bytes(BYTES[kind](exported.exact.read_bytes()))
    for load in (load_model, hierseg.load_model):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value).startswith(str(path))
        assert '\n' not in str(caught.value)


@pytest.mark.parametrize('path', ['', 'nowhere.onnx'])
def test_what_is_no_file_is_named(path: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='the model does not exist'):
        load_model(tmp_path / path)


CIRCLE = [{'id': 'a', 'name': 'A', 'parents': ['b']}, {'id': 'b', 'name': 'B', 'parents': ['a']}]
SETTINGS: dict[str, tuple[str, Any]] = {
    'a circle of classes': ('taxonomy', {'classes': CIRCLE}),
    'an unknown parent': ('taxonomy', {'classes': [{'id': 'a', 'name': 'A', 'parents': ['z']}]}),
    'a class twice': ('taxonomy', {'classes': [{'id': 'a', 'name': 'A', 'parents': []}] * 2}),
    'no classes': ('taxonomy', {'classes': []}),
    'classes in a number': ('taxonomy', 3),
    'no rule': ('decision', {'rule': '__init__', 'threshold': 0.5, 'relative': True}),
    'no threshold': ('decision', {'rule': 'back_off'}),
    'an input of no size': ('input_size', [0, 96]),
    'an input of a planet': ('input_size', [10**9, 96]),
    'a stride of 0': ('mask_stride', 0),
    'padding of text': ('padding', ['a', 'b', 'c']),
    'an infinite threshold': ('mask_threshold', float('inf')),
    'another version': ('version', 99),
}


@pytest.mark.parametrize('kind', SETTINGS)
def test_impossible_metadata_are_named(kind: str, exported: Exported, tmp_path: Path) -> None:
    name, value = SETTINGS[kind]
    path = _changed(exported.exact, tmp_path, {f'hierseg.{name}': json.dumps(value)})
    with pytest.raises(ConfigError, match=r'changed\.onnx: (hierseg\.\w+ of the exported model|expected an export of)'):
        load_model(path)


def test_metadata_that_are_no_json_are_named(exported: Exported, tmp_path: Path) -> None:
    for text in ('{', '[' * 100_000):
        path = _changed(exported.exact, tmp_path, {'hierseg.decision': text})
        with pytest.raises(ConfigError, match=r'changed\.onnx: hierseg\.decision of the exported model is no JSON'):
            load_model(path)


def test_a_graph_of_other_outputs_is_named(exported: Exported, tmp_path: Path) -> None:
    def rename(document: Any) -> None:
        del document.graph.output[0]

    with pytest.raises(ConfigError, match=r'changed\.onnx: the graph has the inputs '):
        load_model(_changed(exported.exact, tmp_path, {}, rename))


def test_files_without_a_checksum_open(exported: Exported, tmp_path: Path) -> None:
    assert load_model(_changed(exported.exact, tmp_path, {})).names


def test_the_seal_is_metadata_of_its_own(exported: Exported) -> None:
    document = onnx.load(exported.exact)
    assert document.metadata_props[-1].key == 'hierseg.crc32'
    del document.metadata_props[-1]
    content = exported.exact.read_bytes()
    assert content == sealed(content[: -(len(sealed(b'')))])
    onnx.checker.check_model(document)


def _changed(source: Path, folder: Path, texts: dict[str, str], change: Callable[[Any], None] | None = None) -> Path:
    """A model with other metadata, and without the checksum."""
    document = onnx.load(source)
    del document.metadata_props[-1]
    for entry in document.metadata_props:
        entry.value = texts.get(entry.key, entry.value)
    if change is not None:
        change(document)
    onnx.save(document, folder / 'changed.onnx')
    return folder / 'changed.onnx'
