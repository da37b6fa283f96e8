"""Makes a store of the shards that openimages.py --shard wrote: the one that a single run would have written.

Example:
    python tools/dataset_converters/merge_shards.py shards/* --out store/train
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hierseg.converters.open_images_progress import merge_shards
from hierseg.errors import exits_cleanly
from hierseg.files import write_json


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Make a store of all shards of one conversion of Open Images.')
    parser.add_argument('shards', nargs='+', type=Path, metavar='SHARD', help='the folders of all shards, in any order')
    parser.add_argument('--out', required=True, metavar='STORE', help='folder to write; it appears when it is whole')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing store')
    parser.add_argument('--summary', type=Path, metavar='JSON', help='write the summary there, too')
    return parser.parse_args()


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    summary = merge_shards(args.shards, out=args.out, overwrite=args.overwrite, progress=True)
    if args.summary:
        write_json(summary.to_json(), args.summary)
    print(summary)
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
