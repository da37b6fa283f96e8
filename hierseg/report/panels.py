"""Pictures set side by side, each with a heading and remarks below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from hierseg.report.canvas import Picture, font, font_size

GAP = 8
"""Pixels between two panels."""
BACKGROUND = (24, 24, 27)
PLAIN = (228, 228, 231)
FAINT = (161, 161, 170)


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture with its texts.

    Attributes:
        picture: (H, W, 3) uint8 RGB.
        title: Bold, above.
        subtitle: Behind the title.
        remarks: Lines below; a line that is too wide ends in an ellipsis.
    """

    picture: Picture
    title: str
    subtitle: str = ''
    remarks: tuple[str, ...] = ()


def side_by_side(panels: Sequence[Panel]) -> Picture:
    """Sets panels in a row, all tops aligned.

    Returns:
        RGB uint8; as wide as the pictures and the gaps between them, and higher than the highest of them
        by the heading and the longest list of remarks (see :func:`line_height`).
    """
    line = line_height(panels[0].picture)
    below = max(len(panel.remarks) for panel in panels) * line
    heights = [panel.picture.shape[0] for panel in panels]
    widths = [panel.picture.shape[1] for panel in panels]
    sheet = Image.new('RGB', (sum(widths) + GAP * (len(panels) - 1), line + max(heights) + below), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    left = 0
    for panel, height, width in zip(panels, heights, widths, strict=True):
        size = font_size(panels[0].picture)
        bold, plain = font(size, bold=True), font(size)
        pen.text((left + 6, line / 2), panel.title, font=bold, fill=PLAIN, anchor='lm')
        behind = 6 + bold.getlength(panel.title) + size
        subtitle = shortened(panel.subtitle, width - behind, size)
        pen.text((left + behind, line / 2), subtitle, font=plain, fill=FAINT, anchor='lm')
        sheet.paste(Image.fromarray(panel.picture), (left, line))
        for row, remark in enumerate(panel.remarks):
            place = (left + 6, line + height + (row + 0.5) * line)
            pen.text(place, shortened(remark, width - 12, size), font=plain, fill=PLAIN, anchor='lm')
        left += width + GAP
    return np.asarray(sheet)


def line_height(picture: Picture) -> int:
    """Height of a heading and of a remark, in pixels."""
    return round(font_size(picture) * 1.8)


def shortened(text: str, width: float, size: int) -> str:
    """The text, cut and ended with an ellipsis where it is wider than ``width`` pixels."""
    letters = font(size)
    if letters.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if letters.getlength(text[:middle].rstrip() + ' …') <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip(' ,') + ' …' if low else ''
