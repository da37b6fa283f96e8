"""Limits of what files may claim of themselves, checked before anything is allocated."""

from __future__ import annotations

import argparse

MAX_PIXELS = 1 << 28
"""Pixels of an image or a mask, where no option says otherwise: 16,384 x 16,384."""
MOST_PIXELS = 1 << 30
"""The greatest such limit: OpenCV reads no larger images, and counts in 32 bits."""


def excess(height: int, width: int, max_pixels: int = MAX_PIXELS) -> str:
    """What is wrong with an image or mask of this size, as the end of a sentence; '' if it is not too large."""
    if 0 < height * width <= min(max_pixels, MOST_PIXELS):
        return ''
    return f'has {width} x {height} pixels (width x height), and 1 to {max_pixels:,} are allowed (--max-pixels)'


def add_max_pixels(parser: argparse._ActionsContainer) -> None:
    """Adds the option ``--max-pixels`` to a command."""
    parser.add_argument(
        '--max-pixels',
        type=_pixels,
        default=MAX_PIXELS,
        metavar='N',
        help='refuse images and masks that claim more pixels, before memory is taken for them (default: %(default)s)',
    )


def _pixels(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and 1 <= int(text) <= MOST_PIXELS):
        raise argparse.ArgumentTypeError(f'{text!r:.40} is no number from 1 to {MOST_PIXELS}')
    return int(text)
