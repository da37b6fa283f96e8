"""Synthetic data sets as the official Open Images files.

Painting and encoding run in any number of processes; an image follows from (seed, split, index) alone,
so the files are the same for every number of them.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from hierseg.errors import ConfigError
from hierseg.synthetic.encoding import CSV_COLUMNS, ImageEncoder, ImageRows
from hierseg.synthetic.options import SplitOptions, SynthesisOptions
from hierseg.synthetic.outlines import FloatArray
from hierseg.synthetic.population import leaf_shares, limited_shares, long_tail_shares, plan_population
from hierseg.synthetic.scenes import ScenePainter
from hierseg.taxonomy import Taxonomy

HIERARCHY_FILE = 'challenge-2019-label-hierarchy.json'
CLASSES_FILE = 'challenge-2019-classes-description.csv'
SUMMARY_FILE = 'synthesis.json'
VIRTUAL_ROOT = '/m/0bl9f'

_CHUNK = 32


@dataclass
class SplitSummary:
    """How many of each a split has.

    Attributes:
        images: Images.
        objects: Objects in the pictures, annotated or not.
        boxes: Annotated objects.
        masks: Those with a mask.
        groups: Those that are group-of.
        coarse: Those annotated at an ancestor of what they are.
        positives: Verified-present labels.
        negatives: Verified-absent labels.
    """

    images: int = 0
    objects: int = 0
    boxes: int = 0
    masks: int = 0
    groups: int = 0
    coarse: int = 0
    positives: int = 0
    negatives: int = 0

    def add(self, rows: ImageRows) -> None:
        """Counts one more image."""
        self.images += 1
        self.objects += rows.objects
        self.boxes += len(rows.tables['bbox'])
        self.masks += len(rows.tables['masks'])
        self.groups += rows.groups
        self.coarse += rows.coarse
        self.positives += rows.positives
        self.negatives += len(rows.tables['labels']) - rows.positives


def table_name(split: str, table: str) -> str:
    """File name of a table of a split; ``table`` is a key of CSV_COLUMNS."""
    return f'challenge-2019-{split}-segmentation-{table}.csv'


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
        What was written, by name of split.

    Raises:
        ConfigError: If ``out`` exists or an option makes no sense.
        AnnotationError: If a file cannot be written.
    """
    if out.exists():
        raise ConfigError('the output folder exists already', where=str(out), fix='Remove it or name another one.')
    if workers < 1:
        raise ConfigError(f'{workers} workers', fix='Ask for at least 1.')
    partial = out.with_name(f'.{out.name}.{os.getpid()}.partial')
    try:
        partial.mkdir(parents=True)
        _write_taxonomy(partial, taxonomy)
        summaries = {}
        for index, split in enumerate(options.splits):
            encoder = _encoder(partial, options, index, taxonomy, counts)
            summaries[split.name] = _write_split(encoder, split, workers=workers, show_progress=show_progress)
        summary = {'options': asdict(options), 'splits': {name: asdict(split) for name, split in summaries.items()}}
        _write_json(partial / SUMMARY_FILE, summary)
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
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


def _encoder(
    out: Path, options: SynthesisOptions, index: int, taxonomy: Taxonomy, counts: FloatArray | None
) -> ImageEncoder:
    split = options.splits[index]
    population = plan_population(
        taxonomy,
        split_shares(split, taxonomy, counts),
        num_images=split.num_images,
        objects_per_image=options.objects_per_image,
        rates=split.rates,
        generator=np.random.default_rng(np.random.SeedSequence((options.seed, index, 0))),
    )
    return ImageEncoder(taxonomy, population, split.rates, split.name, options.seed, index, options.size, out)


def _write_split(encoder: ImageEncoder, split: SplitOptions, *, workers: int, show_progress: bool) -> SplitSummary:
    """Paints all images of a split and writes its tables, in the order of the images."""
    (encoder.out / split.name).mkdir()
    (encoder.out / f'{split.name}-masks').mkdir()
    tables = [table for table in CSV_COLUMNS if table != 'masks-rle' or split.name == 'validation']
    summary = SplitSummary()
    with ExitStack() as stack:
        writers = {}
        for table in tables:
            path = encoder.out / table_name(split.name, table)
            writers[table] = csv.writer(stack.enter_context(path.open('w', newline='')), lineterminator='\n')
            writers[table].writerow(CSV_COLUMNS[table])
        bar = stack.enter_context(
            tqdm(total=split.num_images, desc=split.name, unit='image', disable=not show_progress)
        )
        for rows in stack.enter_context(_painted(encoder, split.num_images, workers)):
            for table in tables:
                writers[table].writerows(rows.tables[table])
            summary.add(rows)
            bar.update()
    return summary


@contextmanager
def _painted(encoder: ImageEncoder, num_images: int, workers: int) -> Iterator[Iterator[ImageRows]]:
    """The rows of all images in order, painted here or by worker processes."""
    if workers == 1:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        painter = ScenePainter(encoder.taxonomy, size=encoder.size)
        try:
            yield (encoder.encode(index, painter) for index in range(num_images))
        finally:
            cv2.setNumThreads(threads)
        return
    # Spawned rather than forked: OpenCV's threads do not survive a fork.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context('spawn'), initializer=_start_worker, initargs=(encoder,)
    )
    try:
        chunks = (range(start, min(start + _CHUNK, num_images)) for start in range(0, num_images, _CHUNK))
        yield (rows for chunk in pool.map(_encode_chunk, chunks) for rows in chunk)
    finally:
        pool.shutdown(cancel_futures=True)


_worker: dict[str, Any] = {}


def _start_worker(encoder: ImageEncoder) -> None:
    cv2.setNumThreads(1)
    _worker['encoder'] = encoder
    _worker['painter'] = ScenePainter(encoder.taxonomy, size=encoder.size)


def _encode_chunk(indices: range) -> list[ImageRows]:
    return [_worker['encoder'].encode(index, _worker['painter']) for index in indices]


def _write_taxonomy(out: Path, taxonomy: Taxonomy) -> None:
    """Writes hierarchy and class list; a class with two parents occurs under both."""

    def node(label: int) -> dict[str, Any]:
        children = [node(child) for child in taxonomy.children[label]]
        return {'LabelName': taxonomy.ids[label], **({'Subcategory': children} if children else {})}

    _write_json(
        out / HIERARCHY_FILE,
        {'LabelName': VIRTUAL_ROOT, 'Subcategory': [node(label) for label in taxonomy.root_classes]},
    )
    with (out / CLASSES_FILE).open('w', newline='', encoding='utf-8') as file:
        csv.writer(file, lineterminator='\n').writerows(zip(taxonomy.ids, taxonomy.names, strict=True))


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + '\n', encoding='utf-8')
