"""Instance segmentation when the classes form a hierarchy and a long tail: an extension of MMDetection."""

from hierseg.operators import install

__version__ = '0.2.0'

# Before mmcv is imported, so that it finds operators where it has none of its own.
install()
