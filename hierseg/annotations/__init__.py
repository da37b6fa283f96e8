"""Annotations on disk: official files and COCO JSON come in, one memory-mapped store comes out."""

from hierseg.annotations.layers import LayerView
from hierseg.annotations.records import ImageRow, Instances
from hierseg.annotations.store import Store
from hierseg.annotations.store_writer import StoreWriter

__all__ = ['ImageRow', 'Instances', 'LayerView', 'Store', 'StoreWriter']
