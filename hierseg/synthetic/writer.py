"""Synthetic data sets as the official Open Images files.

Painting and encoding run in any number of processes; an image follows from (seed, split, index) alone,
so the files are the same for every number of them. Shape letters: H and W image size in pixels, C classes.
"""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from tqdm import tqdm

from hierseg.errors import ConfigError
from hierseg.files import whole_folder
from hierseg.formats import BoolArray, FloatArray
from hierseg.formats.run_lengths import counts_of_mask, text_of_counts
from hierseg.synthetic.options import SplitOptions, SynthesisOptions
from hierseg.synthetic.population import (
    NOT_ANNOTATED,
    Population,
    leaf_shares,
    limited_shares,
    long_tail_shares,
    plan_population,
    verified_labels,
)
from hierseg.synthetic.scenes import ScenePainter
from hierseg.taxonomy import Taxonomy
from hierseg.taxonomy.formats import VIRTUAL_ROOT

_BOX = ('ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf')
_MASK = ('MaskPath', 'ImageID', 'LabelName', 'BoxID', 'BoxXMin', 'BoxXMax', 'BoxYMin', 'BoxYMax')
_RLE = ('ImageID', 'LabelName', 'ImageWidth', 'ImageHeight', 'XMin', 'YMin', 'XMax', 'YMax', 'IsGroupOf', 'Mask')
CSV_COLUMNS = {
    'masks': (*_MASK, 'PredictedIoU', 'Clicks'),
    'bbox': _BOX,
    'labels': ('ImageID', 'LabelName', 'Confidence'),
    'masks-rle': _RLE,
}
"""Columns of the tables of a split, by the last part of their names; the last one in validation only."""
HIERARCHY_FILE = 'challenge-2019-label-hierarchy.json'
CLASSES_FILE = 'challenge-2019-classes-description.csv'
SUMMARY_FILE = 'synthesis.json'
RESIZED_MASK_SCALE = 0.64
JPEG_QUALITY = 92
_PNG_FLAGS = (cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 1)
_CHUNK = 32

Row = tuple[str | int, ...]
Tables = dict[str, list[Row]]
"""Rows by the keys of CSV_COLUMNS, in column order."""


def synthesize(
    out: Path,
    options: SynthesisOptions,
    *,
    taxonomy: Taxonomy,
    counts: FloatArray | None = None,
    workers: int = 1,
    show_progress: bool = False,
) -> dict[str, SplitSummary]:
    """Writes a data set into a new folder; nothing is left behind if it fails.

    Args:
        out: The folder, which must not exist.
        options: Splits, sizes, seed.
        taxonomy: The classes.
        counts: (C,) objects per class to be in proportion to; internal classes stand for objects that
            are annotated only as that. Without it the splits' ``tail_ratio`` makes a long tail.
        workers: Processes that paint; 1 paints in this one.
        show_progress: Whether to draw a progress bar on stderr.

    Returns:
        Numbers of what was written, by name of split.

    Raises:
        ConfigError: If ``out`` exists or an option makes no sense.
        OutputError: If a file cannot be written, or ``out`` is a link to nothing.
    """
    if out.exists():
        raise ConfigError('the output folder exists already', where=str(out), fix='Remove it or name another one.')
    if workers < 1:
        raise ConfigError(f'{workers} workers', fix='Ask for at least 1.')
    with whole_folder(out) as partial:
        _write_taxonomy(partial, taxonomy)
        summaries = {}
        for index, split in enumerate(options.splits):
            shares, generator = split_shares(split, taxonomy, counts), np.random.default_rng((options.seed, index, 0))
            population = plan_population(
                taxonomy, shares, split, objects_per_image=options.objects_per_image, generator=generator
            )
            encoder = ImageEncoder(taxonomy, population, options, index, partial)
            summaries[split.name] = _write_split(encoder, workers=workers, show_progress=show_progress)
        summary = {'options': asdict(options), 'splits': {name: asdict(split) for name, split in summaries.items()}}
        _write_json(partial / SUMMARY_FILE, summary)
    return summaries


def split_shares(split: SplitOptions, taxonomy: Taxonomy, counts: FloatArray | None) -> FloatArray:
    """Shares (C,) of the annotated classes in a split.

    A validation split has the leaves alone: the shares of internal classes go to them.
    """
    if counts is None:
        return long_tail_shares(taxonomy, 1.0 if split.tail_ratio is None else split.tail_ratio)
    if not counts.sum() > 0:
        raise ConfigError('no class has any object', fix='Give at least one class a count above 0.')
    shares = counts / counts.sum()
    if split.name == 'validation':
        shares = leaf_shares(taxonomy, shares)
    return shares if split.tail_ratio is None else limited_shares(shares, split.tail_ratio)


@dataclass(frozen=True)
class SplitSummary:
    """Numbers of what a split has."""

    images: int = 0
    objects: int = 0  # in the pictures, annotated or not
    boxes: int = 0  # annotated objects
    masks: int = 0  # those with a mask
    groups: int = 0  # those that are group-of
    coarse: int = 0  # those annotated at an ancestor of what they are
    positives: int = 0  # verified-present labels
    negatives: int = 0  # verified-absent labels

    def __add__(self, other: SplitSummary) -> SplitSummary:
        return SplitSummary(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


def image_id(seed: int, split: int, index: int) -> str:
    """16 hex digits. A few ids look like a whole number or like 1.5e12, as some real ones do."""
    digits = hashlib.blake2b(f'{seed}/{split}/{index}'.encode(), digest_size=8).hexdigest()
    if index % 101 in (3, 7):
        digits = f'{int(digits, 16) % 10**16:016d}'
        if index % 101 == 7:
            digits = f'{digits[:13]}e{digits[14:]}'
    return digits


@dataclass(frozen=True, eq=False)
class ImageEncoder:
    """Makes any image of a split, files and rows, from its index alone."""

    taxonomy: Taxonomy
    population: Population
    options: SynthesisOptions
    index: int  # the split's place among those of the data set
    out: Path  # ``<name of the split>`` and ``<name of the split>-masks`` exist in it

    @property
    def split(self) -> SplitOptions:
        """The split."""
        return self.options.splits[self.index]

    @cached_property
    def _painter(self) -> ScenePainter:
        return ScenePainter(self.taxonomy, size=self.options.size)

    def encode(self, index: int) -> tuple[Tables, SplitSummary]:
        """Writes an image and its masks; returns its rows and counts."""
        seed, ids, tables = self.options.seed, self.taxonomy.ids, {table: list[Row]() for table in CSV_COLUMNS}
        generator, population = np.random.default_rng((seed, self.index, index + 1)), self.population
        own = slice(int(population.first_objects[index]), int(population.first_objects[index + 1]))
        labels, annotated = population.labels[own], population.annotated_labels[own]
        group_of, has_mask = population.group_of[own], population.has_mask[own]
        scene = self._painter.paint(labels.tolist(), group_of.tolist(), generator)
        name, painted = image_id(seed, self.index, index), scene.is_painted
        _write(self.out / self.split.name / f'{name}.jpg', scene.image, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
        negatives = self.split.rates.negatives
        positive, negative = verified_labels(
            self.taxonomy, labels[painted], annotated[painted], negatives=negatives, generator=generator
        )
        tables['labels'] += [(name, ids[label], 1) for label in positive.tolist()]
        tables['labels'] += [(name, ids[label], 0) for label in negative.tolist()]
        is_annotated = painted & (annotated != NOT_ANNOTATED)
        for item in np.flatnonzero(is_annotated).tolist():
            mask, is_group = scene.owners == item, int(group_of[item])
            left, top, columns, rows = cv2.boundingRect(mask.view(np.uint8))
            (height, width), right, bottom = mask.shape, left + columns, top + rows
            sides = left / width, right / width, top / height, bottom / height
            tables['bbox'].append((name, ids[annotated[item]], *(f'{side:.6f}' for side in sides), is_group))
            if has_mask[item]:
                self._encode_mask(tables, mask, sides, generator)
        summary = SplitSummary(
            images=1,
            objects=int(painted.sum()),
            boxes=len(tables['bbox']),
            masks=len(tables['masks']),
            groups=int((group_of & is_annotated).sum()),
            coarse=int(((labels != annotated) & is_annotated).sum()),
            positives=len(positive),
            negatives=len(negative),
        )
        return tables, summary

    def _encode_mask(self, tables: Tables, mask: BoolArray, sides: tuple[float, ...], generator: Generator) -> None:
        """Writes the PNG of a mask (H, W), the visible part of the object in the last row of boxes; adds its rows."""
        (height, width), is_validation = mask.shape, self.split.name == 'validation'
        image, class_id, x_min, x_max, y_min, y_max, is_group = tables['bbox'][-1]
        box_id = generator.bytes(4).hex()
        path = f'{image}_{str(class_id).strip("/").replace("/", "")}_{box_id}.png'
        # Like the real mask table, with other decimals than the box table.
        decimals = tuple(str(np.float32(side)) for side in sides)
        quality = ('', '') if is_validation else _annotator_trace(sides, generator)
        tables['masks'].append((path, image, class_id, box_id, *decimals, *quality))
        picture = mask.astype(np.uint8) * 255
        if generator.random() < self.split.rates.resized_mask:
            smaller = max(1, round(RESIZED_MASK_SCALE * width)), max(1, round(RESIZED_MASK_SCALE * height))
            picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_NEAREST).astype(np.uint8, copy=False)
        _write(self.out / f'{self.split.name}-masks' / path, picture, _PNG_FLAGS)
        if is_validation:
            # A mask is base64 of zlib of COCO's compressed run lengths there.
            text = text_of_counts(counts_of_mask(mask.view(np.uint8)))
            box = (x_min, y_min, x_max, y_max)
            tables['masks-rle'].append((image, class_id, width, height, *box, is_group, text))


def _annotator_trace(sides: tuple[float, ...], generator: Generator) -> tuple[str, str]:
    """PredictedIoU and Clicks ("x y inside;…", normalised) as an annotator would leave them."""
    left, right, top, bottom = sides
    clicks = [
        f'{left + (right - left) * x:.5f} {top + (bottom - top) * y:.5f} {int(generator.random() < 0.5)}'
        for x, y in generator.random((int(generator.integers(1, 4)), 2)).tolist()
    ]
    return f'{generator.uniform(0.75, 0.97):.5f}', ';'.join(clicks)


def _write(path: Path, picture: npt.NDArray[np.uint8], flags: tuple[int, ...]) -> None:
    # OpenCV's own writing fails without a reason.
    path.write_bytes(cv2.imencode(path.suffix, picture, flags)[1].tobytes())


def _write_split(encoder: ImageEncoder, *, workers: int, show_progress: bool) -> SplitSummary:
    """Paints all images of a split and writes its tables, in the order of the images."""
    split, summary = encoder.split, SplitSummary()
    (encoder.out / split.name).mkdir()
    (encoder.out / f'{split.name}-masks').mkdir()
    with ExitStack() as stack:
        writers = {}
        for table, columns in CSV_COLUMNS.items():
            if table != 'masks-rle' or split.name == 'validation':
                path = encoder.out / f'challenge-2019-{split.name}-segmentation-{table}.csv'
                writers[table] = csv.writer(stack.enter_context(path.open('w', newline='')), lineterminator='\n')
                writers[table].writerow(columns)
        images = stack.enter_context(_painted(encoder, split.num_images, workers))
        bar = tqdm(images, desc=split.name, total=split.num_images, unit='image', disable=not show_progress)
        for tables, counts in bar:
            for table, writer in writers.items():
                writer.writerows(tables[table])
            summary += counts
    return summary


@contextmanager
def _painted(encoder: ImageEncoder, num_images: int, workers: int) -> Iterator[Iterator[tuple[Tables, SplitSummary]]]:
    """Rows and counts of all images in order, painted here or by worker processes."""
    if workers == 1:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            yield map(encoder.encode, range(num_images))
        finally:
            cv2.setNumThreads(threads)
        return
    # Spawned rather than forked: OpenCV's threads do not survive a fork.
    context = multiprocessing.get_context('spawn')
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(encoder,))
    try:
        yield pool.map(_encode, range(num_images), chunksize=_CHUNK)
    finally:
        pool.shutdown(cancel_futures=True)


_worker: list[ImageEncoder] = []


def _start_worker(encoder: ImageEncoder) -> None:
    cv2.setNumThreads(1)
    _worker.append(encoder)


def _encode(index: int) -> tuple[Tables, SplitSummary]:
    return _worker[0].encode(index)


def _write_taxonomy(out: Path, taxonomy: Taxonomy) -> None:
    """Writes hierarchy and class list; a class with two parents occurs under both."""

    def node(label: int) -> dict[str, Any]:
        children = [node(child) for child in taxonomy.children[label]]
        return {'LabelName': taxonomy.ids[label], **({'Subcategory': children} if children else {})}

    roots = [node(label) for label in taxonomy.root_classes]
    _write_json(out / HIERARCHY_FILE, {'LabelName': VIRTUAL_ROOT, 'Subcategory': roots})
    with (out / CLASSES_FILE).open('w', newline='', encoding='utf-8') as file:
        csv.writer(file, lineterminator='\n').writerows(zip(taxonomy.ids, taxonomy.names, strict=True))


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + '\n', encoding='utf-8')
