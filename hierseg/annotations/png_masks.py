"""Mask PNGs into pixels.

The released masks have one bit a pixel, which Pillow decodes in about two thirds of OpenCV's time; eight bits
OpenCV does faster. Whatever else a picture can be goes through Pillow.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

from hierseg.annotations.rle import Mask

PNG_START = b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR'
EIGHT_BITS_GREY = b'\x08\0'
"""Depth and colour type, which follow width and height of four bytes each."""


def read_mask(content: bytes) -> Mask:
    """(H, W) uint8, 0 where the picture is black; every other value is inside.

    Raises:
        OSError, ValueError, SyntaxError or EOFError: If the picture is damaged or cut off.
    """
    if content.startswith(PNG_START) and content[24:26] == EIGHT_BITS_GREY:
        decoded = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is None:
            raise OSError('the PNG data is damaged or cut off')
        return np.asarray(decoded, dtype=np.uint8)
    with Image.open(io.BytesIO(content)) as file:
        pixels = np.asarray(file if file.mode in ('1', 'L') else file.convert('L'))
    return pixels.view(np.uint8)
