"""Operators of mmcv for machines without compiled ones, so that mmcv installs without a compiler.

mmcv finds its operators by importing ``mmcv._ext``. :func:`install` adds a finder for this module. A compiled one
always wins, and one that is broken stays a loud error. Without one, a stand-in computes with torchvision where that
imports and works, else in plain torch. With either, RoI align of many channels on a processor is computed in plain
torch, which takes a fraction of the time. Nothing here imports torch before mmcv asks for its operators, and nothing
imports the rest of hierseg.

``HIERSEG_OPERATORS=torchvision``, ``=torch`` or ``=compiled`` in the environment insists on a backend for everything,
also where there are compiled operators; it is read when mmcv asks for its operators.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import util
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ['backend', 'install']

EXTENSION = 'mmcv._ext'
VARIABLE = 'HIERSEG_OPERATORS'


def install() -> None:
    """Lets mmcv find operators wherever it looks for compiled ones; a second call changes nothing.

    Compiled ones that mmcv has found before are quickened where they are.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())
    if EXTENSION in sys.modules and not os.environ.get(VARIABLE):  # mmcv, and so torch, was imported before
        from hierseg.operators import extension

        extension.quicken(sys.modules[EXTENSION])


def backend() -> str:
    """Name of the operators that mmcv uses here: ``compiled``, ``torchvision``, ``torch``, or ``none`` without mmcv.

    Raises:
        RuntimeError: If the environment insists on a backend that is unknown or does not work.
    """
    install()
    try:
        spec = util.find_spec(EXTENSION)
    except ModuleNotFoundError:
        return 'none'
    if spec is None or not isinstance(spec.loader, _Loader):
        return 'none' if spec is None else 'compiled'
    from hierseg.operators.extension import choose_backend

    return choose_backend().name


class _Finder(MetaPathFinder):
    """Finder of mmcv's operators, asked before all others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Specification of compiled operators, quickened unless the environment insists on them, or of the stand-in."""
        if fullname != EXTENSION:
            return None
        wanted = os.environ.get(VARIABLE, '')
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        compiled = next((spec for spec in specs if spec), None) if wanted in ('', 'compiled') else None
        if compiled is None:
            return ModuleSpec(fullname, _Loader(), origin='hierseg.operators')
        if not wanted and compiled.loader is not None:
            compiled.loader = _Quickening(compiled.loader)
        return compiled


class _Loader(Loader):
    """Loader that fills the module with operators."""

    def exec_module(self, module: ModuleType) -> None:
        """Adds the operators; torch is imported here."""
        from hierseg.operators import extension

        vars(module).update(extension.operators())
        module.__getattr__ = extension.missing  # type: ignore[method-assign]
        if not os.environ.get(VARIABLE):
            extension.quicken(module)


class _Quickening(Loader):
    """Loader of compiled operators that puts quicker ones in front of some."""

    def __init__(self, compiled: Loader) -> None:
        self._compiled = compiled

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """The module as its own loader makes it."""
        return self._compiled.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Loads the compiled operators, then replaces some; torch is imported here."""
        self._compiled.exec_module(module)
        from hierseg.operators import extension

        extension.quicken(module)
