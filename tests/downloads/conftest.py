"""A misbehaving server, and a fetcher with little patience."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mirror import HURRIED, Mirror, PlainMeter, serving

from hierseg.downloads.fetch import Download, Fetcher
from hierseg.downloads.ledger import Ledger
from hierseg.downloads.patience import Patience
from hierseg.downloads.remote import Client


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('no_proxy', '*')


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving(Mirror()) as mirror:
        yield mirror


@pytest.fixture
def content() -> bytes:
    """300,001 bytes: larger than a piece of the server's and a chunk of the client's."""
    return np.random.default_rng(0).bytes(300_001)


@pytest.fixture
def fetch(mirror: Mirror, tmp_path: Path) -> Callable[..., bool]:
    """Fetches one file of the mirror into the test's folder, as a new run would."""

    def run(name: str = 'a.zip', *, patience: Patience = HURRIED, meter: PlainMeter | None = None, **options) -> bool:
        fetcher = Fetcher(
            tmp_path,
            client=Client(patience),
            patience=patience,
            ledger=Ledger(tmp_path),
            **{'resumed_from': 0, **options},
        )
        meter = meter or PlainMeter()
        was_fetched = fetcher.fetch(Download(name, mirror.url + name), meter)
        if was_fetched:
            assert meter.position == (tmp_path / name).stat().st_size
            assert [path.name for path in (tmp_path / name).parent.iterdir() if 'partial' in path.name] == []
        return was_fetched

    return run
