"""A colour for every class: one hue per root class, shades of it below.

Shape letters: C classes.
"""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt

from hierseg.taxonomy import Taxonomy

GOLDEN_RATIO = 0.618033988749895
"""Steps of this part of a circle keep any number of hues far apart, and never move an earlier one."""


def class_colors(taxonomy: Taxonomy) -> npt.NDArray[np.uint8]:
    """The colours of a taxonomy's classes, the same at every call.

    A class takes the hue of its preferred root, so that siblings and their parent look related. Within a
    family the shades are spread by position, so that siblings can still be told apart.

    Returns:
        (C, 3) uint8, RGB.
    """
    roots = taxonomy.arrays.preferred_roots
    family_of = {root: family for family, root in enumerate(taxonomy.root_classes)}
    colors = np.empty((taxonomy.num_classes, 3), dtype=np.uint8)
    for root, family in family_of.items():
        members = np.nonzero(roots == root)[0]
        members = members[np.argsort(members != root, kind='stable')]  # the root class itself first
        for position, label in enumerate(members):
            colors[label] = _shade(family, position)
    return colors


def text_color(background: npt.NDArray[np.uint8]) -> tuple[int, int, int]:
    """Black or white, whichever reads better on an RGB background.

    By relative luminance (WCAG 2). That standard's own border, 0.18, has black text on violet and blue.
    """
    linear = (np.asarray(background, dtype=np.float64) / 255) ** 2.2
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return (0, 0, 0) if luminance > 0.3 else (255, 255, 255)


def _shade(family: int, position: int) -> tuple[int, int, int]:
    """RGB of a family's member; position 0 is its root class."""
    hue = (0.58 + family * GOLDEN_RATIO) % 1
    if position == 0:
        saturation, value = 0.78, 0.95
    else:
        step = (position * GOLDEN_RATIO) % 1
        hue = (hue + (step - 0.5) * 0.06) % 1
        saturation, value = 0.95 - 0.5 * step, 0.72 + 0.28 * ((step * 3) % 1)
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)
