"""MMDetection data sets over the store."""

from hierseg.datasets.paint_boxes import PaintBoxes
from hierseg.datasets.store_dataset import StoreDataset

__all__ = ['PaintBoxes', 'StoreDataset']
