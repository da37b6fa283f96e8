"""Converts one split of Open Images, from the official files to a store.

Example:
    python tools/dataset_converters/openimages.py \
        --hierarchy challenge-2019-label300-segmentable-hierarchy.json \
        --classes challenge-2019-classes-description-segmentable.csv \
        --boxes challenge-2019-train-segmentation-bbox.csv \
        --labels challenge-2019-train-segmentation-labels.csv \
        --masks challenge-2019-train-segmentation-masks.csv --mask-dir train-masks \
        --images train --out store/train
"""

from __future__ import annotations

import argparse
import os

from hierseg.annotations.openimages import ConversionOptions, OpenImagesFiles, convert_openimages
from hierseg.annotations.openimages_join import BOX_TOLERANCE
from hierseg.errors import exits_cleanly
from hierseg.taxonomy import read_taxonomy


def edge(text: str) -> tuple[str, str]:
    child, separator, parent = text.partition('=')
    if not (child and separator and parent):
        raise argparse.ArgumentTypeError(f'{text!r} is not CHILD=PARENT')
    return child, parent


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Converts one split of Open Images from the official files to a store')
    files = parser.add_argument_group('official files')
    files.add_argument('--hierarchy', required=True, metavar='JSON', help='class hierarchy')
    files.add_argument('--classes', required=True, metavar='CSV', help='class descriptions (MID,name, no header)')
    files.add_argument('--boxes', required=True, metavar='CSV', help='boxes')
    files.add_argument('--labels', required=True, metavar='CSV', help='image-level labels verified by people')
    files.add_argument('--masks', required=True, metavar='CSV', help='masks: paths of PNG files, or encoded masks')
    files.add_argument('--mask-dir', metavar='DIR', help='the PNG files, flat or in sub-folders by first hex digit')
    files.add_argument('--images', required=True, metavar='DIR', help='<ImageID>.jpg, flat or likewise')
    output = parser.add_argument_group('output')
    output.add_argument('--out', required=True, metavar='STORE', help='folder to write; it appears when it is whole')
    output.add_argument('--overwrite', action='store_true', help='replace an existing store')
    output.add_argument(
        '--workers', type=int, default=len(os.sched_getaffinity(0)), metavar='N', help='processes (default: all cores)'
    )
    taxonomy = parser.add_argument_group('taxonomy')
    taxonomy.add_argument('--ignore-parts', action='store_true', help='ignore Part edges of the hierarchy')
    taxonomy.add_argument(
        '--preferred-parent',
        type=edge,
        action='append',
        default=[],
        metavar='CHILD=PARENT',
        help='the parent to prefer for a class that has several; may be repeated',
    )
    imperfect = parser.add_argument_group('imperfect input')
    imperfect.add_argument(
        '--skip-unknown-classes', action='store_true', help='leave out rows of classes that the taxonomy does not have'
    )
    imperfect.add_argument(
        '--skip-broken', action='store_true', help='leave out missing or unreadable images, and unreadable masks'
    )
    imperfect.add_argument('--strict', action='store_true', help='a missing mask PNG is an error, not a box only')
    imperfect.add_argument(
        '--box-tolerance',
        type=float,
        default=BOX_TOLERANCE,
        metavar='FRACTION',
        help='how far the coordinates of one box may differ between the two files (default: %(default)s)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with exits_cleanly():
        summary = convert_openimages(
            OpenImagesFiles(args.boxes, args.labels, args.masks, args.images, args.mask_dir),
            read_taxonomy(
                args.hierarchy,
                classes=args.classes,
                preferred_parents=dict(args.preferred_parent) or None,
                ignore_parts=args.ignore_parts,
            ),
            out=args.out,
            options=ConversionOptions(
                skip_unknown_classes=args.skip_unknown_classes,
                skip_broken=args.skip_broken,
                strict=args.strict,
                box_tolerance=args.box_tolerance,
            ),
            overwrite=args.overwrite,
            workers=args.workers,
            progress=True,
        )
    print(summary)
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
