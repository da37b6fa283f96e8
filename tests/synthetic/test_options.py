from __future__ import annotations

import pytest

from hierseg.errors import ConfigError
from hierseg.synthetic import AnnotationRates, SplitOptions, SynthesisOptions

TRAIN = SplitOptions('train', 1, 10.0, AnnotationRates())


@pytest.mark.parametrize('rate', ['coarse', 'unannotated', 'group_of', 'box_only', 'resized_mask'])
@pytest.mark.parametrize('value', [-0.1, 1.1, float('nan')])
def test_rates_are_shares(rate: str, value: float) -> None:
    with pytest.raises(ConfigError, match='rate is'):
        AnnotationRates(**{rate: value})


def test_negatives_are_not_negative() -> None:
    with pytest.raises(ConfigError, match='-1 negative labels'):
        AnnotationRates(negatives=-1)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('train', 0, 10.0), 'train split: 0 images'),
        (('train', 5, 0.5), r'train split: head to tail 0\.5 : 1'),
        (('train', 5, float('nan')), 'head to tail nan'),
        (('holdout', 5, 2.0), "split 'holdout'"),
    ],
)
def test_bad_splits(arguments: tuple[str, int, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SplitOptions(*arguments, AnnotationRates())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'size': 63}, 'images of 63 pixels'),
        ({'size': 5000}, 'images of 5000 pixels'),
        ({'seed': -1}, 'seed -1'),
        ({'seed': 2**32}, 'seed 4294967296'),
        ({'objects_per_image': 0.5}, r'0\.5 objects'),
        ({'objects_per_image': float('nan')}, 'nan objects'),
    ],
)
def test_bad_data_sets(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SynthesisOptions((TRAIN,), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize('splits', [(), (TRAIN, TRAIN)])
def test_splits_are_there_once(splits: tuple[SplitOptions, ...]) -> None:
    with pytest.raises(ConfigError, match='each once'):
        SynthesisOptions(splits)
