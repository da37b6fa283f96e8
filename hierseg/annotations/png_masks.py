"""Mask PNGs into pixels.

The released masks have one bit a pixel. Rows of such a picture are those of one with eight bits and an eighth of the
width, filters and all, so that under a header that says so OpenCV decodes them without ever making a byte of a pixel.
Masks of eight bits it decodes as they are; whatever else a picture can be goes through Pillow.

Shape letters: H height and W width of a mask, S = ⌈W / 8⌉ bytes of a row.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from hierseg.annotations import rle
from hierseg.annotations.records import IntArray
from hierseg.annotations.rle import Mask

# The first chunk: its length and name, then width, height, depth, colour type, three methods; then its checksum.
SIGNATURE = b'\x89PNG\r\n\x1a\n'
HEADER = struct.Struct('>8sI4sIIBBBBBI')
GREY, NOT_INTERLACED = 0, 0


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask of one bit a pixel.

    Attributes:
        rows: (H, S) uint8; the first pixel is the highest bit, and what is behind the last one means nothing.
        width: W.
    """

    rows: Mask
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return len(self.rows), self.width

    def runs(self) -> IntArray:
        """As ``rle.runs_of``."""
        return rle.runs_of_packed(self.rows, self.width)

    def pixels(self) -> Mask:
        """(H, W) uint8 of 0 and 1."""
        return np.unpackbits(self.rows, axis=1, count=self.width)


@dataclass(frozen=True, eq=False)
class PlainMask:
    """A mask of one byte a pixel.

    Attributes:
        values: (H, W) uint8, 0 outside; every other value is inside.
    """

    values: Mask

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.values.shape
        return height, width

    def runs(self) -> IntArray:
        """As ``rle.runs_of``."""
        return rle.runs_of(self.values)

    def pixels(self) -> Mask:
        """The values."""
        return self.values


def read_mask(content: bytes) -> PackedMask | PlainMask:
    """A mask PNG; black is outside, every other value is inside.

    Raises:
        OSError, ValueError, SyntaxError or EOFError: If the picture is damaged or cut off.
    """
    if len(content) >= HEADER.size:
        signature, *_, width, height, depth, colour, _, _, interlace, checksum = HEADER.unpack_from(content)
        simple = signature == SIGNATURE and colour == GREY and interlace == NOT_INTERLACED
        if simple and depth in (1, 8) and b'tRNS' not in content:
            if checksum != zlib.crc32(content[12 : HEADER.size - 4]):
                raise OSError('the header is damaged')
            if depth == 8:
                return PlainMask(_decode(content, (height, width)))
            row_bytes = -(-width // 8)
            return PackedMask(_decode(_as_bytes(content, row_bytes), (height, row_bytes)), width)
    with Image.open(io.BytesIO(content)) as file:
        pixels = np.asarray(file if file.mode in ('1', 'L') else file.convert('L'))
    return PlainMask(pixels.view(np.uint8))


def _as_bytes(content: bytes, row_bytes: int) -> bytes:
    """A picture of one bit under the header of one of eight bits."""
    header = content[12:16] + struct.pack('>I', row_bytes) + content[20:24] + b'\x08' + content[25 : HEADER.size - 4]
    return content[:12] + header + struct.pack('>I', zlib.crc32(header)) + content[HEADER.size :]


def _decode(content: bytes, shape: tuple[int, int]) -> Mask:
    decoded = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.shape != shape:
        raise OSError('the PNG data is damaged or cut off')
    return np.asarray(decoded, dtype=np.uint8)
