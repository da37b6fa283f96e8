"""MMDetection data sets over the store."""

from hierseg.datasets.store_dataset import StoreDataset

__all__ = ['StoreDataset']
