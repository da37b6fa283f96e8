from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strips import common_of, objects_of, prediction_of, prediction_without_masks
from taxonomies import ANIMAL, BEAR, CAR, TEDDY, TOY, random_taxonomies, teddy_taxonomy

from hierseg.errors import EvaluationError
from hierseg.metrics import ImageGroundTruth
from hierseg.metrics.localised_pairs import ImagePairs, LocalisedPairs, pair_image
from hierseg.metrics.names import information, operating_point
from hierseg.taxonomy import Taxonomy

ARRAYS = teddy_taxonomy().arrays


def pair(
    objects: list[tuple[int, int, int]],
    regions: list[tuple[dict[int, float], int, int]],
    *,
    groups: tuple[int, ...] = (),
    maskless: tuple[int, ...] = (),
    score_threshold: float = 0.0,
) -> ImagePairs:
    """Pairs (label, first, last column) with (score by label, first, last column); detections name the best class."""
    truth = objects_of(objects, groups=groups, maskless=maskless)
    names = [max(scores, key=scores.get) for scores, _, _ in regions]
    prediction = prediction_of(regions, names=names, num_classes=5)
    nothing = np.zeros(0, dtype=np.int64)
    return pair_image(
        truth, prediction, common=common_of(truth, prediction), absent=nothing, score_threshold=score_threshold
    )


class TestPairs:
    def test_the_most_probable_detection_chooses_first(self) -> None:
        # Both lie on the bear at least by half; the car is the surer one, whatever it is called.
        found = pair([(BEAR, 0, 20)], [({ANIMAL: 0.6, BEAR: 0.5}, 0, 20), ({CAR: 0.7}, 0, 12)])
        assert found.true_labels.tolist() == [BEAR]
        assert found.named_labels.tolist() == [CAR]
        assert found.class_scores.tolist() == [[0, 0, 0, 0, pytest.approx(0.7)]]
        assert found.missed_labels.tolist() == []

    def test_each_takes_the_object_that_it_overlaps_most_of_those_left(self) -> None:
        # Objects [0, 20) and [4, 24) overlap: 16 / 24. The first detection, [0, 22), has IoU 20/22 and 18/24 with
        # them and takes the bear; the second, [0, 20), would prefer it too (1.0), and takes the car (16/24).
        objects = [(CAR, 4, 24), (BEAR, 0, 20)]
        found = pair(objects, [({TOY: 0.5}, 0, 20), ({ANIMAL: 0.9}, 0, 22)])
        assert found.true_labels.tolist() == [BEAR, CAR]
        assert found.named_labels.tolist() == [ANIMAL, TOY]

    def test_half_is_enough_and_less_is_not(self) -> None:
        assert len(pair([(BEAR, 0, 20)], [({ANIMAL: 0.6}, 0, 10)]).true_labels) == 1
        assert len(pair([(BEAR, 0, 20)], [({ANIMAL: 0.6}, 0, 9)]).true_labels) == 0

    def test_groups_and_boxes_without_a_mask_do_not_count(self) -> None:
        objects = [(BEAR, 0, 20), (ANIMAL, 20, 40), (CAR, 40, 60)]
        regions = [({ANIMAL: 0.6}, start, start + 20) for start in (0, 20, 40)]
        found = pair(objects, regions, groups=(1,), maskless=(2,))
        assert found.missed_labels.tolist() == []
        assert found.true_labels.tolist() == [BEAR]

    def test_improbable_detections_can_be_left_out(self) -> None:
        objects, regions = [(BEAR, 0, 20), (CAR, 20, 40)], [({ANIMAL: 0.6, BEAR: 0.2}, 0, 20), ({CAR: 0.5}, 20, 40)]
        assert pair(objects, regions, score_threshold=0.55).true_labels.tolist() == [BEAR]
        assert pair(objects, regions, score_threshold=0.7).missed_labels.tolist() == [BEAR, CAR]

    def test_nothing_on_either_side(self) -> None:
        assert pair([], [({CAR: 0.5}, 0, 9)]).missed_labels.tolist() == []
        found = pair([(CAR, 0, 9)], [])
        assert (found.missed_labels.tolist(), found.class_scores.shape) == ([CAR], (0, 5))

    def test_blank_masks_take_nothing(self) -> None:
        assert len(pair([(CAR, 0, 9)], [({CAR: 0.9}, 0, 0)]).true_labels) == 0

    def test_detections_need_masks(self) -> None:
        nothing = np.zeros(0, dtype=np.int64)
        truth = ImageGroundTruth(nothing, np.zeros((0, 4)), np.zeros(0, dtype=bool), [], nothing, nothing)
        with pytest.raises(EvaluationError, match='image a: the detections have no masks'):
            pair_image(truth, prediction_without_masks(5), common=np.zeros((0, 0), dtype=np.int64), absent=nothing)


def gathered(*images: tuple[list[int], list[int]], taxonomy: Taxonomy | None = None) -> LocalisedPairs:
    """Images as (true labels, absent classes); each has one object more than was found."""
    arrays = (taxonomy or teddy_taxonomy()).arrays
    count = len(arrays.depths)
    return LocalisedPairs.gather(
        [
            ImagePairs(
                image_id=f'{at:04}',
                true_labels=np.array(labels, dtype=np.int64),
                named_labels=np.array(labels, dtype=np.int64),
                class_scores=np.zeros((len(labels), count), dtype=np.float32),
                missed_labels=np.array([TOY]),
                absent=np.array(absent, dtype=np.int64),
            )
            for at, (labels, absent) in enumerate(images)
        ],
        arrays,
    )


class TestGathering:
    def test_pairs_know_their_image(self) -> None:
        pairs = gathered(([BEAR, CAR], []), ([], [CAR]), ([TOY], []))
        assert len(pairs) == 3
        assert pairs.image_of.tolist() == [0, 0, 2]
        assert pairs.image_ids == ('0000', '0001', '0002')
        assert (pairs.missed_image_of.tolist(), pairs.missed_labels.tolist()) == ([0, 1, 2], [TOY] * 3)
        assert (pairs.num_images, pairs.num_objects, pairs.match_sums.ratio) == (3, 6, 0.5)

    def test_what_the_object_may_be(self) -> None:
        #                toy    animal bear   teddy  car
        possible = {
            TOY: [True, True, True, True, False],  # it may be a teddy, which is an animal and a bear
            BEAR: [True, True, True, True, False],
            TEDDY: [True, True, True, True, False],
            CAR: [False, False, False, False, True],
        }
        assert gathered(([*possible], [])).possible.tolist() == [*possible.values()]

    def test_what_is_absent_on_the_image_is_not_the_object(self) -> None:
        pairs = gathered(([ANIMAL], [TEDDY]), ([ANIMAL], [BEAR, TEDDY]), ([ANIMAL], []))
        assert pairs.possible.tolist() == [
            [False, True, True, False, False],
            [False, True, False, False, False],
            [True, True, True, True, False],
        ]

    @given(random_taxonomies(), st.integers(0, 999))
    def test_by_brute_force(self, taxonomy: Taxonomy, seed: int) -> None:
        generator = np.random.default_rng(seed)
        count = taxonomy.num_classes
        negative = set(generator.choice(count, size=count // 3, replace=False).tolist())
        absent = {v for v in range(count) if negative & ({v} | taxonomy.ancestors(v))}
        pairs = gathered((list(range(count)), sorted(absent)), taxonomy=taxonomy)
        below = [{v} | taxonomy.descendants(v) for v in range(count)]
        expected = [[bool((below[true] & below[other]) - absent) for other in range(count)] for true in range(count)]
        assert pairs.possible.tolist() == expected

    def test_no_images(self) -> None:
        pairs = gathered()
        assert len(pairs) == 0
        assert np.isnan(pairs.match_sums.ratio)
        assert np.isnan(operating_point(pairs, pairs.true_labels, ARRAYS).correctness)


class TestOperatingPoint:
    def test_information_by_hand(self) -> None:
        # Leaves are teddy and car. Under toy, animal and bear there is one, as under a leaf: all is said.
        assert information(ARRAYS).tolist() == [1, 1, 1, 1, 1]
        people = Taxonomy.from_edges(['person', 'man', 'woman', 'car', 'dog'], [('man', 'person'), ('woman', 'person')])
        # 4 leaves, 2 under person: log(4 / 2) / log 4 = 0.5.
        assert information(people.arrays).tolist() == pytest.approx([0.5, 1, 1, 1, 1])
        assert information(Taxonomy.from_edges(['a', 'b'], [('b', 'a')]).arrays).tolist() == [0, 0]

    def test_by_hand(self) -> None:
        pairs = gathered(([BEAR, BEAR, BEAR], []), ([BEAR, CAR], [TEDDY]))
        #                 exact  above   may be  absent  wrong
        named = np.array([BEAR, ANIMAL, TEDDY, TEDDY, TOY])
        point = operating_point(pairs, named, ARRAYS)
        assert point.unknown == pytest.approx(1 / 5)
        assert point.correctness == pytest.approx(2 / 4)
        assert point.exact == pytest.approx(1 / 4)
        assert point.distance == pytest.approx((0 + 1 + 1 + 2) / 4)

    def test_what_is_said_counts_whether_or_not_it_is_known_to_be_right(self) -> None:
        people = Taxonomy.from_edges(['person', 'man', 'woman', 'car', 'dog'], [('man', 'person'), ('woman', 'person')])
        pairs = gathered(([0, 0], []), taxonomy=people)
        # Person says 0.5 and is right; man says 1 and is unknown.
        point = operating_point(pairs, np.array([0, 1]), people.arrays)
        assert (point.information, point.correctness, point.unknown) == (pytest.approx(0.75), 1, 0.5)

    def test_the_true_class_is_right_even_if_the_image_says_it_is_absent(self) -> None:
        pairs = gathered(([BEAR], [BEAR, TEDDY]))
        assert operating_point(pairs, np.array([BEAR]), ARRAYS).correctness == 1

    @given(random_taxonomies(), st.integers(0, 999))
    def test_going_up_never_makes_a_name_wrong(self, taxonomy: Taxonomy, seed: int) -> None:
        count = taxonomy.num_classes
        generator = np.random.default_rng(seed)
        true, named = generator.integers(count, size=(2, 12))
        pairs = gathered((true.tolist(), []), taxonomy=taxonomy)
        higher = np.array([generator.choice(sorted({v} | taxonomy.ancestors(v))) for v in named.tolist()])
        for label, above in zip(named, higher, strict=True):
            wrong, wrong_above = (
                ~taxonomy.arrays.ancestor_mask[true, name] & ~pairs.possible[:, name] for name in (label, above)
            )
            assert not (wrong_above & ~wrong).any()


def correctness_interval(pairs, named):
    return pairs.image_sums(*pairs.judged(named, ARRAYS)).effects.interval(bounds=(0, 1))


class TestInterval:
    def test_contains_the_correctness_and_shrinks_with_images(self) -> None:
        widths = []
        for images in (20, 2000):
            # Each image has a right and, every other one, a wrong name: correctness 2 / 3.
            pairs = gathered(*[([BEAR], []) if i % 2 else ([BEAR, CAR], []) for i in range(images)])
            named = np.full(len(pairs), BEAR)
            low, high = correctness_interval(pairs, named)
            assert low < 2 / 3 < high
            widths.append(high - low)
        # A hundred times the images, a tenth of the width; a quantile of t is a little larger on 20 images.
        assert widths[0] / widths[1] == pytest.approx(10, rel=0.2)

    def test_images_count_whole(self) -> None:
        # One image of 50 wrong names, one of 50 right ones: two images say nothing, whatever they hold.
        pairs = gathered(([CAR] * 50, []), ([BEAR] * 50, []))
        assert correctness_interval(pairs, np.full(100, BEAR)) == (0, 1)

    def test_without_a_known_name(self) -> None:
        pairs = gathered(([BEAR], []))
        assert np.isnan(correctness_interval(pairs, np.array([TEDDY]))).all()
