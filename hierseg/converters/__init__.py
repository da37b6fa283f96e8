"""Conversion of foreign annotations: official Open Images files and COCO JSON to stores, and stores to COCO JSON."""

from hierseg.converters.open_images import convert_open_images
from hierseg.converters.options import ConversionOptions, OpenImagesFiles

__all__ = ['ConversionOptions', 'OpenImagesFiles', 'convert_open_images']
