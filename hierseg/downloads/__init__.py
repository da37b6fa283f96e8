"""Fetching large public files over HTTP: resumed, verified, whole or not there; and what of Open Images to fetch."""

from hierseg.downloads.open_images import DownloadOptions, OpenImagesDownload
from hierseg.downloads.patience import Patience

__all__ = ['DownloadOptions', 'OpenImagesDownload', 'Patience']
