"""Checksums that servers publish in the headers of their answers."""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Protocol

from hierseg.downloads.crc32c import Crc32c

READ_BYTES = 1 << 20


class Hasher(Protocol):
    """What ``hashlib`` makes."""

    def update(self, data: bytes, /) -> None:
        """Takes more data."""

    def digest(self) -> bytes:
        """The checksum of the data so far."""


def _md5() -> Hasher:
    return hashlib.md5(usedforsecurity=False)


HASHERS: Mapping[str, Callable[[], Hasher]] = {'md5': _md5, 'crc32c': Crc32c}
"""The cheapest to compute first."""


@dataclass(frozen=True)
class Checksum:
    """A published checksum.

    Attributes:
        algorithm: A key of ``HASHERS``.
        hexadecimal: The value.
    """

    algorithm: str
    hexadecimal: str

    def hasher(self) -> Hasher:
        """A new one of the algorithm."""
        return HASHERS[self.algorithm]()

    def fits(self, hasher: Hasher) -> bool:
        """Whether the hasher has seen the published content."""
        return hasher.digest().hex() == self.hexadecimal

    def fits_file(self, path: Path) -> bool:
        """Whether the file has the published content."""
        hasher = self.hasher()
        update_from(hasher, path)
        return self.fits(hasher)


def update_from(hasher: Hasher, path: Path) -> None:
    """Feeds a whole file."""
    with path.open('rb') as file:
        while block := file.read(READ_BYTES):
            hasher.update(block)


def published_checksum(headers: Message) -> Checksum | None:
    """The checksum of the whole file, if the answer of its server names one.

    - Google Cloud Storage: ``x-goog-hash: crc32c=…,md5=…`` in base64, of the content as stored; it is not of the
      content as sent if that was stored compressed.
    - Amazon S3 and its like: an ETag of 32 hex digits is the MD5, unless the file was encrypted with keys of a
      customer; one with a hyphen is of a file uploaded in parts. Other servers make ETags as they please.
    """
    if headers.get('x-goog-stored-content-encoding', 'identity') == 'identity':
        published = dict(re.findall(r'(\w+)=([\w+/]+=*)', ','.join(headers.get_all('x-goog-hash', []))))
        for algorithm in HASHERS:
            if algorithm in published:
                return Checksum(algorithm, b64decode(published[algorithm]).hex())
    is_s3 = 'x-amz-request-id' in headers
    encrypted = headers.get('x-amz-server-side-encryption', 'AES256') != 'AES256'
    encrypted |= 'x-amz-server-side-encryption-customer-algorithm' in headers
    etag = headers.get('ETag', '').strip('"')
    if is_s3 and not encrypted and re.fullmatch('[0-9a-f]{32}', etag):
        return Checksum('md5', etag)
    return None
