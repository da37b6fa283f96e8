from __future__ import annotations

import torch
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, teddy_taxonomy

from hierseg.functional import deepest_confident_class


def decide(probabilities: list[float], threshold: float = 0.5) -> int:
    arrays = teddy_taxonomy().arrays
    return deepest_confident_class(
        torch.tensor([probabilities]),
        torch.from_numpy(arrays.ancestor_mask.copy()),
        torch.from_numpy(arrays.depths.copy()),
        threshold=threshold,
    ).item()


def test_takes_the_deepest_class_that_holds_enough_of_its_root() -> None:
    #              toy  animal bear teddy car; animal is the best root and bear holds 0.5 of 0.8.
    assert decide([0.15, 0.8, 0.5, 0.1, 0.05]) == BEAR
    # bear holds 0.39 of 0.8, less than half.
    assert decide([0.15, 0.8, 0.39, 0.1, 0.05]) == ANIMAL
    # The same bear with a lower threshold.
    assert decide([0.15, 0.8, 0.39, 0.1, 0.05], threshold=0.4) == BEAR


def test_a_class_with_two_parents_is_reached_from_the_better_root() -> None:
    assert decide([0.7, 0.6, 0.6, 0.5, 0.0]) == TEDDY
    assert decide([0.7, 0.2, 0.1, 0.1, 0.0]) == TOY


def test_a_root_class_without_children_names_itself_however_improbable() -> None:
    assert decide([0.0, 0.01, 0.01, 0.0, 0.02]) == CAR


def test_among_equally_deep_classes_the_more_probable_wins() -> None:
    from hierseg.taxonomy import Taxonomy

    arrays = Taxonomy.from_edges(['person', 'man', 'woman'], [('man', 'person'), ('woman', 'person')]).arrays
    labels = deepest_confident_class(
        torch.tensor([[0.8, 0.36, 0.4], [0.8, 0.4, 0.36], [0.8, 0.35, 0.33]]),
        torch.from_numpy(arrays.ancestor_mask.copy()),
        torch.from_numpy(arrays.depths.copy()),
        threshold=0.44,
    )
    # 0.44 × 0.8 = 0.352: woman; man; neither reaches it, so person.
    assert labels.tolist() == [2, 1, 0]


def test_no_detections() -> None:
    arrays = teddy_taxonomy().arrays
    labels = deepest_confident_class(
        torch.zeros(0, 5),
        torch.from_numpy(arrays.ancestor_mask.copy()),
        torch.from_numpy(arrays.depths.copy()),
        threshold=0.5,
    )
    assert labels.shape == (0,)
