"""Run lengths: equal to pycocotools on what is right, an error instead of a crash on what is not."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from open_images_files import counts_of, rectangle
from pycocotools import mask as coco_mask

from hierseg.errors import EvaluationError
from hierseg.formats import run_lengths
from hierseg.formats.run_lengths import measure, regular

masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda size: st.lists(st.booleans(), min_size=size[0] * size[1], max_size=size[0] * size[1]).map(
        lambda bits: np.array(bits, dtype=np.uint8).reshape(size)
    )
)


@given(masks)
def test_equal_to_pycocotools(mask):
    height, width = mask.shape
    expected = coco_mask.encode(np.asfortranarray(mask))['counts']
    assert run_lengths.counts_of_mask(mask) == expected
    assert run_lengths.counts_of_mask(mask * 255) == expected
    assert run_lengths.check_counts(expected, height, width) == mask.sum()
    runs = run_lengths.parse_counts(expected)
    # Runs alternate between outside and inside, column by column.
    np.testing.assert_array_equal(np.repeat(np.arange(len(runs)) % 2, runs), mask.T.ravel())
    assert run_lengths.encode_runs(runs.tolist(), height, width) == expected
    np.testing.assert_array_equal(run_lengths.mask_of_counts(expected, height, width), mask)


@given(st.lists(st.integers(0, 1 << 28), min_size=1, max_size=30))
def test_large_runs(runs):
    # Sizes of no real picture, so that numbers of several characters and both signs of difference occur.
    encoded = coco_mask.frPyObjects({'counts': runs, 'size': [1, sum(runs)]}, 1, sum(runs))['counts']
    if sum(runs) < 1 << 31:
        assert run_lengths.parse_counts(encoded).tolist() == runs


@given(st.binary(max_size=40))
def test_any_bytes_are_parsed_or_refused(counts):
    try:
        runs = run_lengths.parse_counts(counts)
    except run_lengths.MalformedMaskError:
        return
    assert (runs >= 0).all()


GOOD = coco_mask.encode(np.asfortranarray(np.eye(20, dtype=np.uint8)))['counts']


@pytest.mark.parametrize(
    ('counts', 'message'),
    [
        (b'', 'there are no run lengths'),
        (GOOD + b'\x7f', 'none of the run-length alphabet'),
        (GOOD + b' ', 'none of the run-length alphabet'),
        # The diagonal's runs are 0, 1, then 20 outside and 1 inside by turns, 400 in all; the last is 1.
        (GOOD[:-1], r'cover 399 pixels, 20 x 20 \(width x height\) has 400'),
        # '5' is 5: five more than the run two before, which is 20.
        (GOOD + b'5', 'cover 425 pixels'),
        (GOOD + b'P', 'cut off'),  # 'P' is 32: more characters follow
        (b'PPPPPPPP0', 'too many digits'),
        # 'N' is 30: five bits 11110, sign bit set: -2.
        (b'N', 'negative'),
    ],
)
def test_malformed_counts(counts, message):
    with pytest.raises(run_lengths.MalformedMaskError, match=message):
        run_lengths.check_counts(counts, 20, 20)


@pytest.mark.parametrize('runs', [[1, 2], [-1, 5], [2.0, 2], ['4'], [5, -1], [1 << 40]])
def test_malformed_runs(runs):
    with pytest.raises(run_lengths.MalformedMaskError):
        run_lengths.encode_runs(runs, 2, 2)


def test_text_of_the_evaluation_form():
    assert run_lengths.counts_of_text(base64.b64encode(zlib.compress(GOOD)).decode()) == GOOD


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('not base64!', 'not base64'),
        ('é', 'not base64'),
        ('AAAA', 'not zlib data'),
        ('', 'zlib data is cut off'),
        (base64.b64encode(zlib.compress(GOOD * 50)[:-6]).decode(), 'zlib data is cut off'),
    ],
)
def test_malformed_text(text, message):
    with pytest.raises(run_lengths.MalformedMaskError, match=message):
        run_lengths.counts_of_text(text)


def test_a_zip_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(run_lengths, 'LARGEST_TEXT', 1000)
    with pytest.raises(run_lengths.MalformedMaskError, match='unpacks to more than 1,000 bytes'):
        run_lengths.counts_of_text(base64.b64encode(zlib.compress(b'0' * 100_000)).decode())


def test_nearest_neighbour():
    mask = np.array([[0, 1], [1, 0]], dtype=np.uint8)
    np.testing.assert_array_equal(
        run_lengths.resize_nearest(mask, 4, 4), [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]
    )
    # Three columns of a row of six: the centres 0.5, 1.5, 2.5 lie at 1, 3, 5 in the source: columns 1, 3, 5.
    row = np.array([[0, 1, 0, 0, 1, 1]], dtype=np.uint8)
    np.testing.assert_array_equal(run_lengths.resize_nearest(row, 1, 3), [[1, 0, 1]])
    # Eight rows become two: centres 0.5 and 1.5 lie at 2 and 6.
    column = np.array([[0, 0, 1, 0, 0, 0, 1, 0]], dtype=np.uint8).T
    np.testing.assert_array_equal(run_lengths.resize_nearest(column, 2, 1), [[1], [1]])


def measured(masks, height, width):
    sizes = [np.full(len(masks), extent, dtype=np.int64) for extent in (height, width)]
    return measure(masks, *sizes)


def written(runs):
    """Compressed run lengths of any runs, also of ones that no encoder writes."""
    text = bytearray()
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        while True:
            digit, value = value & 0x1F, value >> 5
            more = value != (-1 if digit & 0x10 else 0)
            text.append(48 + digit + (0x20 if more else 0))
            if not more:
                break
    return bytes(text)


masks_of_one_size = st.integers(1, 7).flatmap(
    lambda height: st.integers(1, 40).flatmap(
        lambda width: st.lists(hnp.arrays(bool, (height, width)), min_size=1, max_size=5)
    )
)


@given(masks_of_one_size)
def test_agrees_with_pycocotools(masks):
    height, width = masks[0].shape
    encoded = [counts_of(mask) for mask in masks]
    measures = measured(encoded, height, width)
    for index, mask in enumerate(masks):
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
        assert (
            measures.areas[index] == coco_mask.area({'size': [height, width], 'counts': encoded[index]}) == mask.sum()
        )
        assert measures.boxes[index].tolist() == box
    assert not measures.irregular.any()


@given(masks_of_one_size, st.integers(0, 31))
def test_boxes_that_are_not_asked_for_are_zeros(masks, wanted):
    height, width = masks[0].shape
    encoded = [counts_of(mask) for mask in masks]
    extents = [np.full(len(masks), extent, dtype=np.int64) for extent in (height, width)]
    boxed = np.array([wanted >> index & 1 for index in range(len(masks))], dtype=bool)
    found, whole = measure(encoded, *extents, boxed=boxed), measure(encoded, *extents)
    np.testing.assert_array_equal(found.boxes, whole.boxes * boxed[:, None])
    np.testing.assert_array_equal(found.areas, whole.areas)


def test_large_masks_and_many_chunks():
    # Long numbers (4000 × 5000 needs five digits) and more bytes than one chunk takes.
    noise = np.random.default_rng(0).random((400, 500)) < 0.5
    tall = rectangle(4990, 3990, 5000, 4000, size=(4000, 5000))
    masks = [counts_of(noise), counts_of(tall)] * 3
    sizes = np.array([[400, 500], [4000, 5000]] * 3)
    measures = measure(masks, sizes[:, 0], sizes[:, 1])
    assert measures.areas.tolist() == [noise.sum(), 100] * 3
    assert measures.boxes[1].tolist() == [4990, 3990, 5000, 4000]


def test_a_run_that_reaches_the_next_column_spans_the_height():
    mask = np.zeros((5, 4), dtype=bool)
    mask.T.flat[8:12] = True  # rows 3 and 4 of column 1, rows 0 and 1 of column 2
    assert measured([counts_of(mask)], 5, 4).boxes.tolist() == [[1, 0, 3, 5]]


def test_empty_runs_are_found_and_made_regular():
    # 4 background, 3 foreground, 0 background, 2 foreground, 7 background: 5 foreground pixels in one run.
    odd = written([4, 3, 0, 2, 7])
    measures = measured([odd, written([4, 5, 7])], 4, 4)
    assert measures.irregular.tolist() == [True, False]
    assert measures.areas.tolist() == [5, 5]
    assert measures.boxes.tolist() == [[1, 0, 3, 4]] * 2
    assert regular(odd) == written([4, 5, 7])


def test_no_masks():
    assert len(measured([], 3, 3).areas) == 0


GOOD = counts_of(rectangle(1, 1, 5, 6))


@pytest.mark.parametrize(
    'bad',
    [
        pytest.param(b'', id='empty'),
        pytest.param(GOOD[:-1], id='cut'),
        pytest.param(GOOD + b'1', id='one run too many'),
        pytest.param(b'\x00' + GOOD, id='foreign character below'),
        pytest.param(GOOD[:2] + b'~' + GOOD[2:], id='foreign character above'),
        pytest.param(b'o', id='ends within a number'),
        pytest.param(b'oooooooooooooooo0', id='number of 80 bits'),
        pytest.param(written([10, 60, -6]), id='negative run'),
        pytest.param(written([2**40, 64]), id='run beyond the image'),
        pytest.param(counts_of(rectangle(0, 0, 1, 1, size=(8, 9))), id='another size'),
    ],
)
@pytest.mark.parametrize('position', [0, 1, 2])
def test_bad_run_lengths_are_refused_with_their_index(bad, position):
    masks = [GOOD, GOOD]
    masks.insert(position, bad)
    with pytest.raises(EvaluationError, match=rf'^mask {position}: .*8×8'):
        measured(masks, 8, 8)


@settings(max_examples=300)
@given(st.binary(min_size=1, max_size=12))
def test_whatever_is_accepted_decodes_to_what_was_measured(data):
    try:
        measures = measured([data], 4, 4)
    except EvaluationError:
        return
    pixels = coco_mask.decode({'size': [4, 4], 'counts': data})
    assert pixels.sum() == measures.areas[0]


@given(st.lists(st.integers(0, 16), min_size=1, max_size=9))
def test_any_runs_of_the_right_total_are_read(runs):
    runs = [*runs, 64]
    total = sum(runs)
    measures = measured([written(runs)], 1, total)
    assert measures.areas[0] == sum(runs[1::2])
    assert measures.irregular[0] == (0 in runs[1:])
    assert np.array_equal(
        coco_mask.decode({'size': [1, total], 'counts': written(runs)})[0],
        np.repeat(np.arange(len(runs)) % 2, runs),
    )
