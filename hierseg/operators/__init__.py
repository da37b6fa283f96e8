"""Operators of mmcv for machines without compiled ones, so that mmcv installs without a compiler.

mmcv finds its operators by importing ``mmcv._ext``. :func:`install` adds a finder that is asked for this module only
where no compiled one is found: a compiled one always wins, and one that is broken stays a loud error. The stand-in
computes with torchvision where that imports and works, else in plain torch. Nothing here imports torch before mmcv asks
for its operators, and nothing imports the rest of hierseg.

``HIERSEG_OPERATORS=torchvision``, ``=torch`` or ``=compiled`` in the environment insists on a backend, also where there
are compiled operators; it is read when hierseg is imported.
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
    """Lets mmcv find the stand-in where there are no compiled operators; a second call changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        # Asked first where the environment insists on another backend than compiled operators.
        insists = os.environ.get(VARIABLE, 'compiled') not in ('', 'compiled')
        sys.meta_path.insert(0 if insists else len(sys.meta_path), _Finder())


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
    """Finder of the stand-in, asked after all others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Specification of the stand-in, if that is what is looked for."""
        return ModuleSpec(fullname, _Loader(), origin='hierseg.operators') if fullname == EXTENSION else None


class _Loader(Loader):
    """Loader that fills the module with operators."""

    def exec_module(self, module: ModuleType) -> None:
        """Adds the operators; torch is imported here."""
        from hierseg.operators import extension

        vars(module).update(extension.operators())
        module.__getattr__ = extension.missing  # type: ignore[method-assign]
