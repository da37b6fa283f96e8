"""Downloads of Open Images: which official files a split and classes need, and fetching them, verified and resumed."""

from hierseg.downloads.fetch import Outcome, RetryPolicy
from hierseg.downloads.open_images import OpenImagesDownload

__all__ = ['OpenImagesDownload', 'Outcome', 'RetryPolicy']
