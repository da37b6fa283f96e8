"""Which stores a config reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def stores_in(settings: Any) -> Iterator[str]:
    """The stores of all data sets in a part of a config."""
    if isinstance(settings, Mapping):
        if isinstance(settings.get('store'), str):
            yield settings['store']
        settings = list(settings.values())
    if isinstance(settings, (list, tuple)):
        for value in settings:
            yield from stores_in(value)
