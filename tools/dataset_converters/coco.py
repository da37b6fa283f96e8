"""Converts a COCO JSON to a store, and a store to COCO JSON.

Example:
    python tools/dataset_converters/coco.py to-store instances_train2017.json --images train2017 --out store/train
    python tools/dataset_converters/coco.py from-store store/train --out train.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hierseg.errors import exits_cleanly
from hierseg.limits import add_max_pixels
from hierseg.taxonomy import Taxonomy, read_taxonomy


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Converts a COCO JSON to a store, or a store to COCO JSON')
    commands = parser.add_subparsers(dest='command', required=True)
    to_store = commands.add_parser('to-store', help='COCO JSON to a store')
    to_store.add_argument('annotations', metavar='JSON', help='instances of a COCO data set')
    to_store.add_argument('--images', required=True, metavar='DIR', help='the folder that file names are relative to')
    to_store.add_argument('--out', required=True, metavar='STORE', help='folder to write; it appears when it is whole')
    to_store.add_argument(
        '--taxonomy',
        metavar='FILE',
        help='a JSON whose classes match the categories by id or name, or a CSV or YAML edge list over the '
        'categories (default: the taxonomy in the file, or else its supercategories)',
    )
    to_store.add_argument(
        '--orientation',
        choices=['stored', 'turned'],
        help='how annotations lie on images that EXIF data turns (default: found out if the file tells, else stored)',
    )
    to_store.add_argument(
        '--keep-root', action='store_true', help='keep a class above all others that is never annotated (Roboflow)'
    )
    to_store.add_argument(
        '--no-crowds', action='store_true', help='take iscrowd as 0: CVAT marks every brushed mask as a crowd'
    )
    to_store.add_argument(
        '--absolute-paths', action='store_true', help='allow file names that leave the folder: of files that you trust'
    )
    add_max_pixels(to_store)
    modes = to_store.add_mutually_exclusive_group()
    modes.add_argument('--lenient', action='store_true', help='leave out what cannot be read, and count it')
    modes.add_argument('--strict', action='store_true', help='refuse what would be put right')
    from_store = commands.add_parser('from-store', help='a store to COCO JSON')
    from_store.add_argument('store', metavar='STORE', help='folder of a store')
    from_store.add_argument('--out', required=True, metavar='JSON', help='file to write')
    for command in (to_store, from_store):
        command.add_argument('--overwrite', action='store_true', help='replace what is there')
    return parser.parse_args()


def taxonomy_of(path: str | None, annotations: str) -> Taxonomy | None:
    if path is None:
        return None
    return read_taxonomy(path, classes=None if Path(path).suffix == '.json' else annotations)


def main() -> None:
    args = parse_arguments()
    from hierseg.converters.coco import convert_coco, write_coco
    from hierseg.store import Store

    with exits_cleanly():
        if args.command == 'to-store':
            summary = convert_coco(
                args.annotations,
                taxonomy_of(args.taxonomy, args.annotations),
                images=args.images,
                out=args.out,
                mode='lenient' if args.lenient else 'strict' if args.strict else 'default',
                orientation=args.orientation,
                keep_root=args.keep_root,
                crowds=not args.no_crowds,
                max_pixels=args.max_pixels,
                absolute_paths=args.absolute_paths,
                overwrite=args.overwrite,
                progress=True,
            )
            print(summary)
        else:
            counts = write_coco(Store.open(args.store), args.out, overwrite=args.overwrite, progress=True)
            print(', '.join(f'{count:,} {name}' for name, count in counts.items()))
        print(f'written to {args.out}')


if __name__ == '__main__':
    main()
