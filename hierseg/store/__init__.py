"""Annotations on disk: official files and COCO JSON come in, one memory-mapped store comes out."""

from hierseg.store.layers import LayerView
from hierseg.store.store import ImageRow, Instances, Store
from hierseg.store.writer import StoreWriter

__all__ = ['ImageRow', 'Instances', 'LayerView', 'Store', 'StoreWriter']
