"""Masks as the official files write them: base64(zlib(COCO compressed RLE counts))."""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Callable, Sequence

from hierseg.errors import EvaluationError


def encode_mask(counts: bytes) -> str:
    """The text of one mask.

    Args:
        counts: COCO compressed run lengths.
    """
    return binascii.b2a_base64(zlib.compress(counts), newline=False).decode('ascii')


def decode_masks(texts: Sequence[str], *, where: Callable[[int], str]) -> list[bytes]:
    """COCO compressed run lengths of many masks; their content is not checked yet.

    Args:
        texts: The masks.
        where: Says of the index of a mask where it comes from.

    Raises:
        EvaluationError: At the first text that is not base64 or not zlib.
    """
    try:
        return [zlib.decompress(binascii.a2b_base64(text)) for text in texts]
    except (ValueError, zlib.error):
        for index, text in enumerate(texts):
            try:
                zlib.decompress(binascii.a2b_base64(text))
            except (ValueError, zlib.error) as error:
                raise EvaluationError(
                    f'the mask cannot be decoded ({error})',
                    where=where(index),
                    fix='A mask is base64(zlib(COCO compressed RLE counts)).',
                ) from None
        raise
