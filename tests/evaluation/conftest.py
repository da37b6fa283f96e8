"""The store that the tests of this folder share."""

from small_store import pets

__all__ = ['pets']
