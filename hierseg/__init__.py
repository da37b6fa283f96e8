"""hierseg: instance segmentation with a class hierarchy, on MMDetection."""

__version__ = '0.1.0'
