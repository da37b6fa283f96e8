"""The stand-in operators, beside or in place of compiled ones."""

from __future__ import annotations

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


@pytest.fixture(params=['torch', 'torchvision'])
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that mmcv would find without compiled operators."""
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
