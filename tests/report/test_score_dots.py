"""The picture of scores, by what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from hierseg.report.class_plots import plot_score_dots

SCORES = {
    'without': {'mAP': [0.4, 0.6], 'rare': [0.1, 0.2], 'common': [0.5, 0.5]},
    'with it': {'mAP': [0.7], 'rare': [0.4], 'common': [0.6]},
}


@pytest.fixture
def dots(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[float], float]]:
    """Scores and row of everything that is plotted."""
    found: list[tuple[list[float], float]] = []
    plot = Axes.plot

    def noting(axes: Axes, x, y, *arguments, **options):
        found.append((list(x), float(np.mean(y))))
        return plot(axes, x, y, *arguments, **options)

    monkeypatch.setattr(Axes, 'plot', noting)
    return found


def test_a_dot_for_each_training_in_the_row_of_its_variant(tmp_path, dots):
    plot_score_dots(SCORES, [['mAP'], ['rare', 'common']], tmp_path / 'scores.png', title='Is it worth it?')
    assert [values for values, _ in dots] == [[0.4, 0.6], [0.7], [0.1, 0.2], [0.4], [0.5, 0.5], [0.6]]
    # Alone in the middle of its row; two scores of a row above and below that.
    assert [round(row, 2) for _, row in dots] == [0, 1, -0.11, 0.89, 0.11, 1.11]
    with Image.open(tmp_path / 'scores.png') as picture:
        assert picture.format == 'PNG'
        assert picture.width > picture.height


def test_more_variants_need_more_room(tmp_path):
    many = {str(number): SCORES['with it'] for number in range(9)}
    for name, scores in (('few', SCORES), ('many', many)):
        plot_score_dots(scores, [['mAP']], tmp_path / f'{name}.png', title='')
    heights = [Image.open(tmp_path / f'{name}.png').height for name in ('few', 'many')]
    assert heights[1] - heights[0] == pytest.approx(7 * 0.36 * 110, abs=2)
