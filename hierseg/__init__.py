"""Instance segmentation when the classes form a hierarchy and a long tail: an extension of MMDetection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hierseg.operators import install

if TYPE_CHECKING:
    from hierseg.prediction import load_model

__all__ = ['load_model']

__version__ = '0.2.0'

# Before mmcv is imported, so that it finds operators where it has none of its own.
install()


def __getattr__(name: str) -> Any:
    # What needs more than the standard library is imported when it is asked for.
    if name == 'load_model':
        from hierseg.prediction import load_model

        return load_model
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
