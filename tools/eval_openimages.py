"""Scores a submission by the Open Images Challenge protocol (instance segmentation or detection track).

Example:
    python tools/eval_openimages.py --boxes boxes.csv --labels labels.csv --masks masks.csv \
        --hierarchy hierarchy.json --predictions submission.csv --out result.json
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hierseg.errors import exits_cleanly
from hierseg.files import disk_faults, write_json
from hierseg.limits import add_max_pixels
from hierseg.locks import locked_file

if TYPE_CHECKING:
    from hierseg.taxonomy import Taxonomy


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Scores a submission by the Open Images Challenge protocol: AP at IoU 0.5 of every class and mAP.'
    )
    parser.add_argument('--boxes', required=True, metavar='CSV', help='ground-truth boxes')
    parser.add_argument('--labels', required=True, metavar='CSV', help='verified image-level labels')
    parser.add_argument(
        '--masks', metavar='CSV', help='ground-truth masks, encoded or as PNG files; needed for segm, not read for bbox'
    )
    pngs = parser.add_mutually_exclusive_group()
    pngs.add_argument('--mask-dir', metavar='DIR', help='the PNG files, flat or in sub-folders by first hex digit')
    pngs.add_argument(
        '--mask-zips', nargs='+', default=[], metavar='ZIP', help='the PNG files in zip archives, or folders of such'
    )
    parser.add_argument(
        '--images', metavar='DIR', help='<ImageID>.jpg: give masks of PNG files the size of their image'
    )
    parser.add_argument('--hierarchy', required=True, metavar='JSON', help='class hierarchy')
    parser.add_argument('--predictions', required=True, metavar='FILE', help='submission: CSV, or COCO results (.json)')
    parser.add_argument(
        '--coco', metavar='JSON', help='COCO file that the image and category ids of COCO results are those of'
    )
    parser.add_argument('--iou-type', choices=['segm', 'bbox'], default='segm', help='what to compare (default: segm)')
    parser.add_argument(
        '--group-of-weight',
        type=float,
        choices=[0.0, 1.0],
        help='what finding a group-of object counts (default: 0 for segm, 1 for bbox)',
    )
    parser.add_argument('--no-expand', action='store_true', help='the ground truth is expanded already')
    parser.add_argument('--ignore-parts', action='store_true', help='ignore Part edges of the hierarchy')
    parser.add_argument(
        '--workers', type=int, default=1, metavar='W', help='processes; the result does not depend on it (default: 1)'
    )
    add_max_pixels(parser)
    parser.add_argument('--out', metavar='JSON', help='write the result there instead of printing it')
    return parser.parse_args()


def encoded_masks(args: argparse.Namespace, taxonomy: Taxonomy, folder: str) -> str | None:
    """The CSV of encoded masks: the one that was named, or one that is made of PNG files."""
    if args.masks is None or args.iou_type == 'bbox':
        return None
    from hierseg.converters.open_images_encoded import encode_masks
    from hierseg.converters.open_images_tables import masks_are_files
    from hierseg.converters.options import OpenImagesFiles

    if not masks_are_files(Path(args.masks)):
        return str(args.masks)
    files = OpenImagesFiles(args.boxes, args.labels, args.masks, args.images or '', args.mask_dir, args.mask_zips)
    out = Path(folder, 'masks.csv')
    encode_masks(
        files, taxonomy, out, resize=args.images is not None, max_pixels=args.max_pixels, progress=sys.stderr.isatty()
    )
    return str(out)


def main() -> None:
    args = parse_arguments()
    from hierseg.metrics import evaluate_files
    from hierseg.taxonomy import read_taxonomy

    with (
        exits_cleanly(),
        TemporaryDirectory(prefix='hierseg-') as folder,
        disk_faults(folder, only_full=True),
        nullcontext() if args.out is None else locked_file(args.out),
    ):
        taxonomy, keys = read_taxonomy(args.hierarchy, ignore_parts=args.ignore_parts), None
        if args.coco is not None:
            from hierseg.evaluation.result_keys import keys_of_file

            keys = keys_of_file(args.coco, taxonomy)
        result = evaluate_files(
            args.boxes,
            args.labels,
            predictions=args.predictions,
            taxonomy=taxonomy,
            masks=encoded_masks(args, taxonomy, folder),
            keys=keys,
            iou_type=args.iou_type,
            group_of_weight=args.group_of_weight,
            expand=not args.no_expand,
            max_pixels=args.max_pixels,
            workers=args.workers,
            progress=True,
        )
        document = result.to_json(taxonomy.ids)
        if args.out is None:
            print(json.dumps(document, indent=1))
        else:
            write_json(document, args.out)
            print(f'mAP {result.mean_average_precision:.4f} over {result.num_classes_evaluated} classes → {args.out}')


if __name__ == '__main__':
    main()
