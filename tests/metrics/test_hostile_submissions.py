"""Submissions that claim more than they hold: refused with their line, before memory is taken for them."""

from __future__ import annotations

import base64
import csv
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from open_images_files import rectangle, write_case
from taxonomies import teddy_taxonomy

from hierseg.errors import EvaluationError
from hierseg.formats.run_lengths import compress_runs, counts_of_mask, parse_counts, regular
from hierseg.metrics import evaluate_files, open_images

ROW = {'image': 'a', 'cls': 'car', 'box': (0.0, 0.0, 0.5, 0.5), 'group': False, 'score': 0.5, 'present': True}
ROW['mask'] = rectangle(0, 0, 4, 4)


def text_of(counts: bytes) -> str:
    return base64.b64encode(zlib.compress(counts, 9)).decode()


def files(folder: Path, *rows: tuple[Any, ...]) -> dict[str, Path]:
    """Ground truth of 8 x 8 pixels, and a submission of rows of image, width, height and text of the mask."""
    written = write_case(folder, [ROW], [ROW], [], [ROW], iou_type='segm')
    with written['predictions'].open('a', newline='') as file:
        csv.writer(file).writerows([image, *size, 'car', 0.5, text] for image, *size, text in rows)
    return written


def evaluate(folder: Path, *rows: tuple[Any, ...], **options: Any) -> Any:
    return evaluate_files(**files(folder, *rows), taxonomy=teddy_taxonomy(), **options)


EVERYTHING = compress_runs(np.array([0, 60_000**2]))


@pytest.mark.parametrize(
    ('row', 'said'),
    [
        (('a', 60_000, 60_000, text_of(EVERYTHING)), 'line 3: the mask has 60000 x 60000 pixels'),
        (('b', 60_000, 60_000, text_of(EVERYTHING)), 'line 3: the mask has 60000 x 60000 pixels'),
        (('a', 16_000, 16_000, text_of(b'0' * 10**6)), 'line 3: the mask is 16000×16000 pixels'),
        (('a', 8, 8, text_of(b'0' * 10**8)), 'unpacks to more than 192 bytes'),
        (('a', 8, 8, text_of(b'0' * 10**3)[:-20]), 'cannot be decoded'),
        (('a', 10**30, 8, text_of(b'0')), 'ImageWidth is 1e+30'),
    ],
)
def test_claims_are_checked_before_masks_are_unpacked(tmp_path: Path, row: tuple[Any, ...], said: str) -> None:
    with pytest.raises(EvaluationError) as refusal:
        evaluate(tmp_path, row)
    assert said in str(refusal.value)


def test_the_limit_is_an_option(tmp_path: Path) -> None:
    assert evaluate(tmp_path, max_pixels=64).mean_average_precision == 1
    with pytest.raises(EvaluationError, match='line 2: the mask has 8 x 8 pixels'):
        evaluate(tmp_path, max_pixels=63)


def test_results_that_claim_too_much(tmp_path: Path) -> None:
    written = files(tmp_path)
    mask = {'size': [60_000, 60_000], 'counts': [0, 60_000**2]}
    entry = {'image_id': 'a', 'category_id': 1, 'score': 0.5, 'segmentation': mask}
    written['predictions'] = tmp_path / 'results.json'
    written['predictions'].write_text(json.dumps([entry]))
    with pytest.raises(EvaluationError, match='entry 1: the mask has 60000 x 60000 pixels'):
        evaluate_files(**written, taxonomy=teddy_taxonomy())


def test_noise_of_many_megabytes_is_refused_and_a_little_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chequerboard has a run for each pixel, and its text is next to nothing."""
    board = np.indices((200, 200)).sum(axis=0) % 2
    text = text_of(counts_of_mask(board.astype(np.uint8)))
    sizes = np.full((10, 2), 200)
    masks, areas, _ = open_images.read_masks([text] * 10, sizes, where=str)
    assert areas.tolist() == [20_000] * 10
    monkeypatch.setattr(open_images, 'SLACK', 200_000)
    with pytest.raises(EvaluationError, match=r'^5: up to here the masks unpack'):
        open_images.read_masks([text] * 10, sizes, where=str)
    assert open_images.read_masks([text] * 5, sizes[:5], where=str)[0] == masks[:5]


def test_parts_of_a_part_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**ROW, 'image': image} for image in 'abcdef']
    found = [{**ROW, 'image': image, 'score': score} for score, image in enumerate('fedcbaabc')]
    written = write_case(tmp_path, rows, rows, [], found, iou_type='segm')
    expected = evaluate_files(**written, taxonomy=teddy_taxonomy())
    monkeypatch.setattr(open_images, 'UNPACKED_AT_ONCE', 100)
    again = evaluate_files(**written, taxonomy=teddy_taxonomy())
    np.testing.assert_array_equal(again.average_precision, expected.average_precision)
    assert again.num_scored.tolist() == expected.num_scored.tolist()
    assert again.num_images == expected.num_images == 6


@pytest.mark.parametrize('seed', range(20))
def test_empty_runs_are_taken_out_without_pixels(seed: int) -> None:
    generator = np.random.default_rng(seed)
    mask = (generator.random((9, 7)) < generator.choice([0, 0.1, 0.5, 1])).astype(np.uint8)
    counts = counts_of_mask(mask)
    runs = parse_counts(counts).tolist()
    for at in generator.integers(0, len(runs) + 1, 3).tolist():
        # A run of k pixels is one of j, none of the other kind, and one of k - j.
        whole = runs[at - 1] if at else 0
        part = int(generator.integers(0, whole + 1))
        runs[max(at - 1, 0) : at] = [part, 0, whole - part] if at else [0, 0]
    assert regular(compress_runs(np.array(runs))) == counts
