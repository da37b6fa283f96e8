from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strips import common_of, objects_of, prediction_of, prediction_without_masks
from taxonomies import random_taxonomies

from hierseg.errors import EvaluationError
from hierseg.metrics.error_kinds import ErrorKind, ImageErrors, count_kinds, error_kinds
from hierseg.metrics.localised_pairs import pair_image
from hierseg.taxonomy import Taxonomy

# toy > ball; animal > bear > polar; animal > cat; teddy under toy (preferred) and bear; car.
TOY, ANIMAL, BEAR, TEDDY, POLAR, CAR, BALL, CAT = range(8)
TAXONOMY = Taxonomy.from_edges(
    ['toy', 'animal', 'bear', 'teddy', 'polar', 'car', 'ball', 'cat'],
    [
        *(('bear', 'animal'), ('teddy', 'toy'), ('teddy', 'bear'), ('polar', 'bear'), ('ball', 'toy')),
        ('cat', 'animal'),
    ],
)


def errors_of(
    objects, regions, *, groups=(), maskless=(), verified=(), absent=(), score_threshold=0.0, taxonomy=TAXONOMY
) -> ImageErrors:
    """Objects are (label, first, last column), detections (name, score, first, last column)."""
    truth = objects_of(objects, groups=groups, maskless=maskless, verified=verified)
    prediction = prediction_of(
        [({name: score}, start, end) for name, score, start, end in regions],
        names=[name for name, *_ in regions],
        num_classes=taxonomy.num_classes,
    )
    return error_kinds(
        truth,
        prediction,
        taxonomy.arrays,
        common=common_of(truth, prediction),
        absent=np.array(absent, dtype=np.int64),
        score_threshold=score_threshold,
    )


def kind_of(name, *objects, at=(0, 20), **options):
    """Kind and object of one detection."""
    found = errors_of(objects, [(name, 0.5, *at)], **options)
    return ErrorKind(found.kinds[0]).name, int(found.objects[0])


class TestOneDetection:
    @pytest.mark.parametrize(
        ('name', 'kind'),
        [
            (TEDDY, 'CORRECT'),
            (BEAR, 'COARSER'),
            (TOY, 'COARSER'),
            (ANIMAL, 'COARSER'),
            (POLAR, 'SIBLING'),  # bear is above both
            (BALL, 'SIBLING'),  # toy is above both
            (CAT, 'COUSIN'),  # animal is above both, but no parent of the teddy
            (CAR, 'FAR'),
        ],
    )
    def test_on_a_teddy(self, name, kind):
        assert kind_of(name, (TEDDY, 0, 20)) == (kind, 0)

    @pytest.mark.parametrize(
        ('name', 'kind'),
        [
            (POLAR, 'FINER'),
            (TOY, 'FINER'),  # it may be a teddy, which is both
            (BALL, 'FAR'),
            (CAT, 'SIBLING'),
            (ANIMAL, 'COARSER'),
        ],
    )
    def test_on_a_bear(self, name, kind):
        assert kind_of(name, (BEAR, 0, 20)) == (kind, 0)

    def test_what_is_absent_is_wrong_below_a_coarse_label(self):
        assert kind_of(POLAR, (BEAR, 0, 20), absent=[POLAR]) == ('COUSIN', 0)
        assert kind_of(TOY, (BEAR, 0, 20), absent=[TEDDY]) == ('FAR', 0)

    def test_half_is_on_it_and_a_tenth_is_near_it(self):
        assert kind_of(CAR, (CAR, 0, 40)) == ('CORRECT', 0)
        assert kind_of(CAR, (CAR, 0, 41)) == ('LOCALISATION', 0)
        assert kind_of(CAR, (CAR, 0, 10), at=(0, 100)) == ('LOCALISATION', 0)
        assert kind_of(CAR, (CAR, 0, 9), at=(0, 100)) == ('BACKGROUND', -1)
        assert kind_of(ANIMAL, (BEAR, 0, 41)) == ('LOCALISATION', 0)
        # Under another name, and nobody knows whether there is a cat.
        assert kind_of(CAT, (BEAR, 0, 41)) == ('UNVERIFIED', -1)

    def test_what_nobody_verified_is_not_counted(self):
        assert kind_of(CAR) == ('UNVERIFIED', -1)
        assert kind_of(CAR, verified=[CAR]) == ('BACKGROUND', -1)
        assert kind_of(CAR, absent=[CAR]) == ('BACKGROUND', -1)
        assert kind_of(ANIMAL, verified=[BEAR]) == ('BACKGROUND', -1)  # there is a bear, so there is an animal
        assert kind_of(BEAR, verified=[ANIMAL]) == ('UNVERIFIED', -1)
        assert kind_of(ANIMAL, verified=[BEAR], absent=[BEAR]) == ('UNVERIFIED', -1)  # there is none
        assert kind_of(ANIMAL, (BEAR, 50, 60)) == ('BACKGROUND', -1)

    def test_groups_are_nobodys_error(self):
        # Half of the detection is within, by mask or by box.
        for maskless in ((), (0,)):
            assert kind_of(CAR, (CAR, 10, 90), groups=[0], maskless=maskless) == ('IGNORED', 0)
            assert kind_of(CAR, (CAR, 11, 90), groups=[0], maskless=maskless) == ('BACKGROUND', -1)
            assert kind_of(POLAR, (BEAR, 0, 90), groups=[0], maskless=maskless) == ('IGNORED', 0)
            assert kind_of(CAR, (BEAR, 0, 90), groups=[0], maskless=maskless, absent=[CAR]) == ('BACKGROUND', -1)

    def test_objects_without_a_mask_are_nobodys_error(self):
        assert kind_of(CAR, (CAR, 0, 40), maskless=[0]) == ('IGNORED', 0)
        assert kind_of(CAR, (CAR, 0, 41), maskless=[0]) == ('BACKGROUND', -1)
        assert kind_of(CAR, (BEAR, 0, 20), maskless=[0], absent=[CAR]) == ('BACKGROUND', -1)
        # On a teddy as much as in a box of animals.
        assert kind_of(CAT, (TEDDY, 0, 20), (ANIMAL, 0, 20), maskless=[1]) == ('IGNORED', 1)
        assert kind_of(CAT, (TEDDY, 0, 20), (CAR, 0, 20), maskless=[1]) == ('COUSIN', 0)


class TestSeveral:
    def test_the_surest_takes_the_object_and_the_others_are_duplicates(self):
        found = errors_of([(CAR, 0, 20)], [(CAR, 0.6, 0, 20), (CAR, 0.9, 0, 15), (CAR, 0.7, 0, 19)])
        assert found.regions.tolist() == [1, 2, 0]
        assert [ErrorKind(kind).name for kind in found.kinds] == ['CORRECT', 'DUPLICATE', 'DUPLICATE']
        assert found.objects.tolist() == [0, 0, 0]

    def test_the_exact_name_takes_the_object_before_a_surer_coarse_one(self):
        found = errors_of([(TEDDY, 0, 20)], [(BEAR, 0.9, 0, 20), (TEDDY, 0.3, 0, 20), (CAT, 0.2, 0, 20)])
        assert [ErrorKind(kind).name for kind in found.kinds] == ['DUPLICATE', 'CORRECT', 'COUSIN']

    def test_one_thing_annotated_twice_is_two_objects(self):
        found = errors_of([(BEAR, 0, 20), (TEDDY, 0, 20)], [(TEDDY, 0.9, 0, 20), (TOY, 0.8, 0, 20), (CAR, 0.7, 0, 20)])
        # The toy may be the bear, who may be a teddy.
        assert [ErrorKind(kind).name for kind in found.kinds] == ['CORRECT', 'FINER', 'FAR']
        assert found.objects[:2].tolist() == [1, 0]

    def test_missed_objects_are_those_that_no_detection_took(self):
        objects = [(CAR, 0, 20), (BEAR, 20, 40), (CAR, 40, 60), (CAR, 60, 80), (CAR, 80, 100)]
        regions = [(CAR, 0.9, 0, 20), (CAR, 0.8, 20, 40), (CAR, 0.7, 40, 45)]
        found = errors_of(objects, regions, groups=[3])
        assert [ErrorKind(kind).name for kind in found.kinds] == ['CORRECT', 'FAR', 'LOCALISATION']
        assert found.missed.tolist() == [2, 4]

    def test_an_improbable_detection_finds_an_object(self):
        found = errors_of([(CAR, 0, 20), (CAR, 50, 60)], [(BEAR, 0.2, 0, 20)], score_threshold=0.5)
        assert (found.regions.tolist(), found.missed.tolist()) == ([], [1])

    def test_what_is_missed_is_what_pairs_miss(self):
        objects, regions = [(CAR, 0, 20), (BEAR, 20, 40)], [(CAR, 0.9, 0, 20), (CAR, 0.8, 0, 20), (BEAR, 0.7, 20, 25)]
        prediction = prediction_of(
            [({name: score}, *at) for name, score, *at in regions], names=[CAR, CAR, BEAR], num_classes=8
        )
        truth, nothing = objects_of(objects), np.zeros(0, dtype=np.int64)
        pairs = pair_image(truth, prediction, common=common_of(truth, prediction), absent=nothing)
        assert pairs.missed_labels.tolist() == [BEAR]
        assert errors_of(objects, regions).missed.tolist() == [1]

    def test_improbable_and_blank_detections_do_not_count(self):
        found = errors_of([], [(CAR, 0.9, 0, 20), (CAR, 0.4, 0, 20), (CAR, 0.8, 5, 5)], score_threshold=0.5)
        assert found.regions.tolist() == [0]

    def test_counts(self):
        images = [
            errors_of([(CAR, 0, 20), (CAR, 50, 60)], [(CAR, 0.9, 0, 20), (CAR, 0.8, 0, 20)]),
            errors_of([(CAR, 0, 20)], [(CAR, 0.9, 0, 20), (BEAR, 0.8, 50, 60)]),
        ]
        nonzero = {name: count for name, count in count_kinds(images).items() if count}
        assert nonzero == {'correct': 2, 'duplicate': 1, 'unverified': 1, 'missed': 1}
        assert set(count_kinds([]).values()) == {0}

    def test_detections_need_masks(self):
        nothing, common = np.zeros(0, dtype=np.int64), np.zeros((0, 0), dtype=np.int64)
        with pytest.raises(EvaluationError, match='image a: the detections have no masks'):
            error_kinds(objects_of([]), prediction_without_masks(8), TAXONOMY.arrays, common=common, absent=nothing)


def plain_kinds(taxonomy, objects, regions, groups, maskless, verified, absent):
    """The documented definitions, on columns."""
    up = [{v} | taxonomy.ancestors(v) for v in range(taxonomy.num_classes)]
    down = [{v} | taxonomy.descendants(v) for v in range(taxonomy.num_classes)]

    def shared(first, second):
        return max(0, min(first[1], second[1]) - max(first[0], second[0]))

    def iou(first, second):
        common = shared(first, second)
        return common / (first[1] - first[0] + second[1] - second[0] - common)

    def compatible(name, label):
        return name in up[label] or bool((down[name] & down[label]) - set(absent))

    singles = [i for i in range(len(objects)) if i not in groups and i not in maskless]
    columns = [tuple(columns) for _, *columns in objects]
    labels = [label for label, *_ in objects]
    order = sorted(range(len(regions)), key=lambda at: -regions[at][1])
    kinds, owner = {}, {}
    for kind, fits in (
        ('CORRECT', lambda name, label: name == label),
        ('COARSER', lambda name, label: name in up[label]),
        ('FINER', compatible),
    ):
        for at in order:
            name, _, *where = regions[at]
            fitting = [i for i in singles if i not in owner and iou(where, columns[i]) >= 0.5 and fits(name, labels[i])]
            if at not in kinds and fitting:
                kinds[at] = kind
                owner[max(fitting, key=lambda i: iou(where, columns[i]))] = at
    present = {v for label in {*labels, *verified} - (set(absent) - set(labels)) for v in up[label]} | set(absent)
    left = list(singles)
    for at in order:
        on = [i for i in left if iou(regions[at][2:], columns[i]) >= 0.5]
        if on:
            left.remove(max(on, key=lambda i: iou(regions[at][2:], columns[i])))
    for at in set(order) - kinds.keys():
        name, _, *where = regions[at]
        on = [i for i in singles if iou(where, columns[i]) >= 0.5]
        near = [i for i in singles if iou(where, columns[i]) >= 0.1 and compatible(name, labels[i])]
        within = [i for i in groups if shared(where, columns[i]) / (where[1] - where[0]) >= 0.5]
        within += [i for i in maskless if i not in groups and iou(where, columns[i]) >= 0.5]
        parents = set(taxonomy.parents[name])
        tests = {
            'IGNORED': [i for i in within if compatible(name, labels[i])],
            'DUPLICATE': [i for i in on if compatible(name, labels[i])],
            'SIBLING': [i for i in on if parents & set(taxonomy.parents[labels[i]])],
            'COUSIN': [i for i in on if up[name] & up[labels[i]]],
            'FAR': on,
            'LOCALISATION': near,
            'UNVERIFIED': [] if name in present else [None],
        }
        kinds[at] = next((kind for kind, evidence in tests.items() if evidence), 'BACKGROUND')
    return [kinds[at] for at in order], left


@given(random_taxonomies(), st.integers(0, 99999))
def test_by_brute_force(taxonomy, seed):
    generator = np.random.default_rng(seed)
    count = taxonomy.num_classes

    def columns():
        start = int(generator.integers(0, 40))
        return start, start + int(generator.integers(8, 40))

    def some(size, chance):
        return np.flatnonzero(generator.random(size) < chance).tolist()

    objects = [(int(generator.integers(count)), *columns()) for _ in range(generator.integers(0, 5))]
    scores = generator.permutation(np.arange(1, 9))[: generator.integers(0, 9)] / 10
    regions = [(int(generator.integers(count)), float(score), *columns()) for score in scores]
    groups, maskless, verified = some(len(objects), 0.2), some(len(objects), 0.2), some(count, 0.3)
    negative = set(some(count, 0.15))
    absent = [v for v in range(count) if negative & ({v} | taxonomy.ancestors(v))]
    options = {'groups': groups, 'maskless': maskless, 'verified': verified, 'absent': absent}
    found = errors_of(objects, regions, taxonomy=taxonomy, **options)
    kinds, missed = plain_kinds(taxonomy, objects, regions, **options)
    assert [ErrorKind(kind).name for kind in found.kinds] == kinds
    assert found.missed.tolist() == missed
    assert sum(count_kinds([found]).values()) == len(regions) + len(missed)
