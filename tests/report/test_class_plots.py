"""Plots of scores, by what is seen in them."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hierseg.report.class_plots import plot_score_dots

SCORES = {
    'without': {'mAP': [0.4, 0.6], 'rare': [0.1, 0.2], 'common': [0.5, 0.5]},
    'with it': {'mAP': [0.7], 'rare': [0.4], 'common': [0.6]},
}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written."""
    found: list[Figure] = []
    save = Figure.savefig

    def noting(figure: Figure, *arguments, **options):
        found.append(figure)
        return save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, 'savefig', noting)
    return found


def test_a_dot_for_each_training_in_the_row_of_its_variant(tmp_path, figures):
    plot_score_dots(SCORES, [['mAP'], ['rare', 'common']], tmp_path / 'scores.png', title='Is it worth it?')
    (figure,) = figures
    first = figure.axes[0]
    rows = dict(zip(first.get_yticks(), (label.get_text() for label in first.get_yticklabels()), strict=True))
    dots = {}
    for axes in figure.axes:
        for line in axes.lines:
            row = float(np.mean(line.get_ydata()))
            dots.setdefault(rows[round(row)], []).append((list(line.get_xdata()), round(row % 1, 2)))
    # Alone in the middle of its row; two scores of a row above and below that.
    assert dots == {
        'without': [([0.4, 0.6], 0), ([0.1, 0.2], 0.89), ([0.5, 0.5], 0.11)],
        'with it': [([0.7], 0), ([0.4], 0.89), ([0.6], 0.11)],
    }
    with Image.open(tmp_path / 'scores.png') as picture:
        assert picture.format == 'PNG'
        assert picture.width > picture.height


def test_more_variants_need_more_room(tmp_path):
    many = {str(number): SCORES['with it'] for number in range(9)}
    for name, scores in (('few', SCORES), ('many', many)):
        plot_score_dots(scores, [['mAP']], tmp_path / f'{name}.png', title='')
    heights = [Image.open(tmp_path / f'{name}.png').height for name in ('few', 'many')]
    assert heights[1] - heights[0] == pytest.approx(7 * 0.36 * 110, abs=2)
