"""The stand-in operators and quickened compiled ones, beside or in place of those that mmcv brings."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from types import ModuleType

import pytest

import hierseg.operators
from hierseg.operators import extension


@pytest.fixture(autouse=True)
def compiled_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled operators are those that mmcv brings, with nothing in front of them."""
    if hierseg.operators.backend() == 'compiled':
        module = import_module('mmcv._ext')
        for name in ('roi_align_forward', 'roi_align_backward'):
            monkeypatch.setattr(module, name, inspect.unwrap(getattr(module, name)))


@pytest.fixture(params=['torch', 'torchvision', 'quickened'])
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, compiled_alone: None) -> ModuleType:
    """The module that mmcv would find without compiled operators, and the one that it does find with them."""
    if request.param == 'quickened':
        if hierseg.operators.backend() != 'compiled':
            pytest.skip('mmcv has no compiled operators')
        module = ModuleType('mmcv._ext')
        vars(module).update(vars(import_module('mmcv._ext')))
        extension.quicken(module)
        return module
    monkeypatch.setenv(hierseg.operators.VARIABLE, request.param)
    extension.choose_backend.cache_clear()
    try:
        module = module_from_spec(ModuleSpec('mmcv._ext', loader := hierseg.operators._Loader()))
        loader.exec_module(module)
    except RuntimeError as error:
        pytest.skip(str(error))
    finally:
        extension.choose_backend.cache_clear()
    return module


@pytest.fixture
def in_mmcv(stand_in: ModuleType) -> Callable[[], AbstractContextManager[None]]:
    """A block in which mmcv computes with the stand-in, although it has compiled operators."""

    @contextmanager
    def block() -> Iterator[None]:
        import_module('mmcv.ops')
        with pytest.MonkeyPatch.context() as patch:
            for name, module in list(sys.modules.items()):
                if name.startswith('mmcv.ops.') and hasattr(module, 'ext_module'):
                    patch.setattr(module, 'ext_module', stand_in)
            yield

    return block
