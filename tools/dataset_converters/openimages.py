"""Converts one split of Open Images, from the official files to a store.

Example:
    python tools/dataset_converters/openimages.py \
        --hierarchy challenge-2019-label300-segmentable-hierarchy.json \
        --classes challenge-2019-classes-description-segmentable.csv \
        --boxes challenge-2019-train-segmentation-bbox.csv \
        --labels challenge-2019-train-segmentation-labels.csv \
        --masks challenge-2019-train-segmentation-masks.csv --mask-dir train-masks \
        --images train --out store/train

A run that was killed goes on where it was when it is started again with the same arguments. Several machines share
the work with --scheduler, the address of a Dask scheduler.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from hierseg.errors import exits_cleanly
from hierseg.files import write_json
from hierseg.limits import add_max_pixels


def edge(text: str) -> tuple[str, str]:
    child, separator, parent = text.partition('=')
    if not (child and separator and parent):
        raise argparse.ArgumentTypeError(f'{text!r} is not CHILD=PARENT')
    return child, parent


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Converts one split of Open Images from the official files to a store')
    files = parser.add_argument_group('official files')
    files.add_argument('--hierarchy', required=True, metavar='JSON', help='class hierarchy')
    files.add_argument('--classes', required=True, metavar='CSV', help='class descriptions (MID,name, no header)')
    files.add_argument('--boxes', required=True, metavar='CSV', help='boxes')
    files.add_argument('--labels', required=True, metavar='CSV', help='image-level labels verified by people')
    files.add_argument('--masks', required=True, metavar='CSV', help='masks: paths of PNG files, or encoded masks')
    pngs = files.add_mutually_exclusive_group()
    pngs.add_argument('--mask-dir', metavar='DIR', help='the PNG files, flat or in sub-folders by first hex digit')
    pngs.add_argument(
        '--mask-zips',
        nargs='+',
        default=[],
        metavar='ZIP',
        help='the PNG files in zip archives, or folders of such',
    )
    files.add_argument('--images', required=True, metavar='DIR', help='<ImageID>.jpg, flat or likewise')
    output = parser.add_argument_group('output')
    output.add_argument('--out', required=True, metavar='STORE', help='folder to write; it appears when it is whole')
    output.add_argument(
        '--overwrite',
        action='store_true',
        help='replace an existing store, and an unfinished conversion begun with other arguments or files',
    )
    output.add_argument('--summary', type=Path, metavar='JSON', help='write the summary there, too')
    work = output.add_mutually_exclusive_group()
    work.add_argument(
        '--workers', type=int, default=len(os.sched_getaffinity(0)), metavar='N', help='processes (default: all cores)'
    )
    work.add_argument(
        '--scheduler',
        metavar='ADDRESS',
        help='of a Dask scheduler, such as tcp://10.0.0.1:8786: use its workers instead',
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
    imperfect.add_argument(
        '--skip-bad-rows',
        action='store_true',
        help='leave out rows without sense, such as a box outside its image',
    )
    modes = imperfect.add_mutually_exclusive_group()
    modes.add_argument('--lenient', action='store_true', help='all three of these: everything left out is counted')
    modes.add_argument('--strict', action='store_true', help='a missing mask PNG is an error, not a box only')
    imperfect.add_argument(
        '--box-tolerance',
        type=float,
        metavar='FRACTION',
        help='how far the coordinates of one box may differ between the two files (default: a thousandth)',
    )
    add_max_pixels(imperfect)
    return parser.parse_args()


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    from hierseg.converters import ConversionOptions, OpenImagesFiles, convert_open_images
    from hierseg.converters.options import BOX_TOLERANCE
    from hierseg.taxonomy import read_taxonomy

    files = OpenImagesFiles(args.boxes, args.labels, args.masks, args.images, args.mask_dir, args.mask_zips)
    taxonomy = read_taxonomy(
        args.hierarchy,
        classes=args.classes,
        preferred_parents=dict(args.preferred_parent) or None,
        ignore_parts=args.ignore_parts,
    )
    options = ConversionOptions(
        skip_unknown_classes=args.skip_unknown_classes or args.lenient,
        skip_bad_rows=args.skip_bad_rows or args.lenient,
        skip_broken=args.skip_broken or args.lenient,
        strict=args.strict,
        box_tolerance=BOX_TOLERANCE if args.box_tolerance is None else args.box_tolerance,
        max_pixels=args.max_pixels,
    )
    summary = convert_open_images(
        files,
        taxonomy,
        out=args.out,
        options=options,
        overwrite=args.overwrite,
        workers=args.workers,
        scheduler=args.scheduler,
        progress=True,
    )
    if args.summary:
        write_json(summary.to_json(), args.summary)
    print(summary)
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
