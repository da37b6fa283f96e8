"""Imports run downwards only: each package of hierseg may use the layers below it, and not its neighbours."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hierseg

PACKAGE = Path(hierseg.__file__).parent

LAYERS = {
    'drawing': 0,
    'errors': 0,
    'limits': 0,
    'files': 0,
    'formats': 0,
    'found': 0,
    'locks': 0,
    'machine': 0,
    'operators': 0,
    'pictures': 0,
    'threads': 0,
    'taxonomy': 0,
    'store': 1,
    'converters': 1,
    'downloads': 1,
    'synthetic': 1,
    'metrics': 1,
    'functional': 1,
    'deploy': 1,
    'registry': 2,
    'screen': 2,
    'seeding': 2,
    'datasets': 2,
    'models': 2,
    'engine': 2,
    'evaluation': 2,
    '__main__': 3,
    'arguments': 3,
    'doctor': 3,
    'prediction': 3,
    'apis': 3,
    'report': 3,
}
MM_PACKAGES = {'mmengine', 'mmcv', 'mmdet'}
HEAVY = {'torch', 'torchvision', *MM_PACKAGES}
# Foreign packages that a room must not import.
FORBIDDEN = {
    'errors': HEAVY,
    'drawing': HEAVY,
    'limits': HEAVY,
    'found': HEAVY,
    'pictures': HEAVY,
    'files': HEAVY,
    'locks': HEAVY,
    'machine': HEAVY,
    'threads': HEAVY,
    'formats': HEAVY,
    'taxonomy': HEAVY | {'pandas', 'pyarrow', 'cv2', 'pycocotools'},
    'store': HEAVY,
    'converters': HEAVY,
    'downloads': HEAVY,
    'synthetic': HEAVY,
    'metrics': HEAVY,
    'functional': MM_PACKAGES,
    'deploy': HEAVY | {'pandas', 'pyarrow', 'networkx', 'pycocotools'},
    'registry': {'torch'},
    'seeding': MM_PACKAGES,
}


def imported_modules(source: str) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            # `from hierseg import metrics` names a room as much as `import hierseg.metrics` does.
            for alias in node.names:
                yield node.lineno, '.' * node.level + f'{node.module or ""}.{alias.name}'


def violations(room: str, source: str) -> list[str]:
    """What a module of a room imports against the rule, a line each."""
    found = []
    for line, name in imported_modules(source):
        top, _, rest = name.partition('.')
        if name.startswith('.'):
            found.append(f'line {line}: relative import')
        elif top in FORBIDDEN.get(room, set()):
            found.append(f'line {line}: {room} must not import {top}')
        elif top == 'hierseg' and (other := rest.partition('.')[0]) in LAYERS and other != room:
            here, there = LAYERS[room], LAYERS[other]
            if room == 'operators' or there > here or (here == there == 1 and (room, other) != ('converters', 'store')):
                found.append(f'line {line}: {room} (L{here}) must not import {other} (L{there})')
    return found


def test_every_room_has_a_layer() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == '.py' or (path / '__init__.py').exists()}
    assert rooms - {'__init__'} <= LAYERS.keys()


@pytest.mark.parametrize('path', sorted(PACKAGE.rglob('*.py')), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
    if room == '__init__':
        names = {name for _, name in imported_modules(path.read_text())}
        assert not {name.partition('.')[0] for name in names} & HEAVY, 'importing hierseg must stay cheap'
        return
    assert violations(room, path.read_text()) == []


# The rule itself can fail, in each of its parts.
@pytest.mark.parametrize(
    ('room', 'source'),
    [
        ('taxonomy', 'from hierseg.store import Store'),
        ('store', 'from hierseg.converters import coco'),
        ('operators', 'from hierseg.errors import ConfigError'),
        ('metrics', 'import hierseg.synthetic.scenes'),
        ('metrics', 'from hierseg import functional'),
        ('metrics', 'def f():\n    import torch'),
        ('functional', 'from mmengine.config import Config'),
        ('models', 'from hierseg.apis import train'),
        ('datasets', 'from .store_dataset import StoreDataset'),
    ],
)
def test_a_forbidden_import_is_found(room: str, source: str) -> None:
    assert len(violations(room, source)) == 1


@pytest.mark.parametrize(
    ('room', 'source'),
    [
        ('converters', 'from hierseg.store import StoreWriter\nfrom hierseg.formats.run_lengths import X'),
        ('metrics', 'from hierseg.taxonomy import Taxonomy\nfrom hierseg.metrics.records import X'),
        ('models', 'import torch, mmdet\nfrom hierseg.functional import losses\nfrom hierseg import registry'),
        ('apis', 'from hierseg.report import page'),
    ],
)
def test_an_allowed_import_is_not(room: str, source: str) -> None:
    assert violations(room, source) == []
