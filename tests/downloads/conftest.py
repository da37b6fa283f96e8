"""A misbehaving server, and a fetcher with little patience."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mirror import HURRIED, Mirror, serving

from hierseg.downloads import RetryPolicy
from hierseg.downloads import fetch as fetch_module
from hierseg.downloads.fetch import Download, Fetcher


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('no_proxy', '*')


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving(Mirror()) as mirror:
        yield mirror


@pytest.fixture(scope='session')
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of this machine, with its key, signed by itself."""
    path = tmp_path_factory.mktemp('tls') / 'certificate.pem'
    command = ['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
    command += ['-keyout', str(path), '-out', str(path) + '.crt', '-days', '2', '-subj', '/CN=localhost']
    command += ['-addext', 'subjectAltName=IP:127.0.0.1', '-addext', 'basicConstraints=critical,CA:FALSE']
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(str(path) + '.crt').read_text())
    return path


@pytest.fixture
def tls_mirror(mirror: Mirror, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A server that is trusted, over TLS; ``fetch`` asks it, too."""
    monkeypatch.setenv('SSL_CERT_FILE', str(certificate))
    with serving(Mirror(), certificate=certificate) as secured:
        mirror.url = secured.url
        yield secured


@pytest.fixture
def content() -> bytes:
    """300,001 bytes: larger than a piece of the server's and a chunk of the client's."""
    return np.random.default_rng(0).bytes(300_001)


@pytest.fixture
def fetch(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Fetches one file of the mirror into the test's folder, as a new run would."""

    def run(
        name: str = 'a.zip',
        *,
        policy: RetryPolicy = HURRIED,
        arrived: list[int] | None = None,
        resumed_from: int = 0,
        stop: threading.Event | None = None,
        recheck: bool = False,
    ) -> bool:
        monkeypatch.setattr(fetch_module, 'RESUMED_FROM_BYTES', resumed_from)
        fetcher = Fetcher(tmp_path, policy=policy, recheck=recheck)
        fetcher.stop = stop or fetcher.stop
        was_fetched = fetcher.fetch(Download(name, mirror.url + name), [].append if arrived is None else arrived.append)
        if was_fetched:
            assert [path.name for path in (tmp_path / name).parent.iterdir() if 'partial' in path.name] == []
        return was_fetched

    return run
