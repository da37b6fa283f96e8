from __future__ import annotations

import numpy as np
import pytest

from hierseg.synthetic.scenes import (
    ANGLES,
    FAMILIES,
    family_outline,
    rippled,
    stretched,
)


@pytest.mark.parametrize('index', range(len(FAMILIES)))
def test_every_family_is_a_positive_outline_of_radius_one(index: int) -> None:
    outline, hole = family_outline(index)
    assert outline.shape == ANGLES.shape
    assert outline.max() == pytest.approx(1)
    assert outline.min() > 0.1
    assert 0 <= hole < 1


def test_families_differ_from_each_other() -> None:
    outlines = [(*family_outline(index)[0], family_outline(index)[1]) for index in range(len(FAMILIES))]
    for first in range(len(outlines)):
        for second in range(first):
            assert np.abs(np.subtract(outlines[first], outlines[second])).max() > 0.1


def test_a_square_outline_has_its_corners_at_45_degrees() -> None:
    # The frame, family 15, is a square of half side s: radius s to the right and s·√2 to the corner,
    # which is scaled to 1. So the radius to the right is 1/√2.
    outline, _ = family_outline(15)
    assert outline[0] == pytest.approx(np.sqrt(0.5))
    assert outline[len(ANGLES) // 8] == pytest.approx(1)


def test_stretching_a_circle_by_four_makes_it_four_times_as_wide_as_high() -> None:
    circle, _ = family_outline(0)
    wide = stretched(circle, 4.0)
    quarter = len(ANGLES) // 4
    assert wide[0] / wide[quarter] == pytest.approx(4, rel=0.02)


def test_ripples_put_bumps_around_the_outline() -> None:
    circle, _ = family_outline(0)
    bumpy = rippled(circle, waves=3, amplitude=0.2)
    # The largest to the smallest radius is (1 + 0.2) : (1 − 0.2).
    assert bumpy.max() / bumpy.min() == pytest.approx(1.5, rel=0.01)
    assert rippled(circle, waves=3, amplitude=0.0) == pytest.approx(circle)
