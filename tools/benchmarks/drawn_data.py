"""Drawn images as a store and as COCO JSON, for benchmarks beside MMDetection's own data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from hierseg.converters.coco import write_coco
from hierseg.converters.open_images import ConversionOptions, OpenImagesFiles, convert_open_images
from hierseg.store import Store
from hierseg.synthetic import AnnotationRates, SplitOptions, SynthesisOptions, synthesize
from hierseg.taxonomy import Taxonomy

# Every object has a mask, and none stands for several: mmdet's reader fails on boxes without a mask.
RATES = AnnotationRates(coarse=0.15, unannotated=0.2, group_of=0.0, box_only=0.0, resized_mask=0.1, negatives=4)
FILTER = dict(filter_empty_gt=True, min_size=32)


def make_data(folder: Path, taxonomy: Taxonomy, args: argparse.Namespace) -> None:
    """Writes images, a store and a COCO JSON; ``args`` has ``images``, ``size``, ``objects`` and ``seed``."""
    splits = (SplitOptions('train', args.images, 10.0, RATES),)
    options = SynthesisOptions(splits=splits, seed=args.seed, size=args.size, objects_per_image=args.objects)
    synthesize(folder / 'official', options, taxonomy=taxonomy, show_progress=True)
    tables = {
        name: folder / 'official' / f'challenge-2019-train-segmentation-{file}.csv'
        for name, file in (('boxes', 'bbox'), ('labels', 'labels'), ('masks', 'masks'))
    }
    files = OpenImagesFiles(
        **tables, images=folder / 'official' / 'train', mask_dir=folder / 'official' / 'train-masks'
    )
    convert_open_images(files, taxonomy, out=folder / 'store', options=ConversionOptions(), progress=True)
    write_coco(Store.open(folder / 'store'), folder / 'coco.json')
