"""Fetches the tables, the masks and those images of Open Images that a split and classes need.

Stopped at any moment, the same command goes on from what is there. The exit status is 0 if everything was had, 1 if
some files could not be had (OUT/not_fetched.csv says which and why), 2 after an error and 130 after Ctrl-C.

Example:
    python tools/dataset_converters/download_openimages.py data/openimages --split validation --dry-run
    python tools/dataset_converters/download_openimages.py data/openimages --split train --images-with masks
    python tools/dataset_converters/download_openimages.py data/dogs --split train --classes Dog Cat --max-images 2000
"""

from __future__ import annotations

import argparse
import os
import sys

from terminaltables import AsciiTable

from hierseg.downloads import OpenImagesDownload, Outcome, RetryPolicy
from hierseg.downloads.open_images import (
    BASE_URL,
    IMAGE_BYTES,
    IMAGES_URL,
    IMAGES_WITH,
    RELEASES,
    SPLITS,
    Plan,
    Selection,
)
from hierseg.errors import exits_cleanly
from hierseg.files import in_words


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Fetch what of Open Images a split and classes need. The same command goes on after a break.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('out', metavar='OUT', help='folder; in it, paths are the official ones')
    parser.add_argument('--dry-run', action='store_true', help='show files and sizes, and fetch nothing')
    what = parser.add_argument_group('what to fetch')
    what.add_argument('--split', choices=SPLITS, required=True)
    what.add_argument('--release', choices=RELEASES, default=RELEASES[0], help='v7 has the masks of V5, V6 and V7')
    what.add_argument(
        '--classes', nargs='+', default=[], metavar='CLASS', help='only images of these, by name or id, and descendants'
    )
    what.add_argument('--hierarchy', metavar='FILE', help='any taxonomy file; the official one if not given')
    what.add_argument(
        '--images-with', choices=IMAGES_WITH, help='the least an image must have; boxes with --classes, else labels'
    )
    what.add_argument('--max-images', type=int, metavar='N', help='at most N images, drawn at random')
    what.add_argument('--seed', type=int, default=0, help='of that draw; a larger N adds to a smaller one')
    what.add_argument(
        '--recheck', action='store_true', help='compare every file that is there with its server, once more'
    )
    servers = parser.add_argument_group('servers')
    servers.add_argument('--base-url', default=BASE_URL, metavar='URL', help='of tables and masks')
    servers.add_argument('--images-url', default=IMAGES_URL, metavar='URL', help='of images')
    servers.add_argument('--workers', type=int, default=16, metavar='N', help='connections at a time')
    policy = RetryPolicy()
    servers.add_argument('--timeout', type=float, default=policy.timeout, metavar='S', help='seconds without a byte')
    servers.add_argument('--min-rate', type=float, default=policy.min_rate, metavar='B', help='bytes a second')
    servers.add_argument(
        '--rate-window',
        type=float,
        default=policy.rate_window,
        metavar='S',
        help='seconds for that rate',
    )
    servers.add_argument(
        '--attempts', type=int, default=policy.attempts, metavar='N', help='in a row that get no further with a file'
    )
    servers.add_argument(
        '--backoff', type=float, default=policy.backoff, metavar='S', help='before the second attempt, then doubled'
    )
    return parser.parse_args()


def plan_in_words(plan: Plan) -> str:
    files, rows = [*plan.tables, *plan.archives], [['file', 'size', 'state']]
    for file in files:
        there = f'{in_words(file.num_there)} are there' if file.num_there else 'to fetch'
        state = file.problem or ('there' if file.is_whole else there)
        rows.append([file.name, '?' if file.size is None else in_words(file.size), state])
    images = in_words(plan.most_images * IMAGE_BYTES)
    rows.append([f'images, at most {plan.most_images:,}', f'about {images}', 'the tables say which'])
    total, missing = sum(file.size or 0 for file in files), sum(file.num_missing for file in files)
    rows.append(['in all, without images', in_words(total), f'{in_words(missing)} to fetch'])
    table = AsciiTable(rows)
    table.justify_columns[1] = 'right'
    table.inner_footing_row_border = True
    return str(table.table)


def selection_in_words(selection: Selection) -> str:
    images = f'{len(selection.image_ids):,} of {selection.num_named:,} images'
    archives = f'{len(selection.archives)} archives of masks'
    return f'{images}, {archives}: about {in_words(sum(selection.num_missing.values()))} to fetch'


def run(args: argparse.Namespace, outcome: Outcome) -> None:
    download = OpenImagesDownload(
        args.out,
        args.split,
        release=args.release,
        classes=args.classes,
        hierarchy=args.hierarchy,
        images_with=args.images_with,
        max_images=args.max_images,
        seed=args.seed,
        recheck=args.recheck,
        base_url=args.base_url,
        images_url=args.images_url,
        workers=args.workers,
        policy=RetryPolicy(args.timeout, args.min_rate, args.rate_window, args.attempts, args.backoff),
        show_progress=True,
    )
    plan = download.plan()
    print(plan_in_words(plan), flush=True)
    if args.dry_run:
        if all(table.is_whole for table in plan.tables):
            print(selection_in_words(download.select(plan)))
        return
    with download.locked():
        download.tables(plan, outcome)
        selection = download.select(plan)
        print(selection_in_words(selection), flush=True)
        download.fetch(selection, outcome)
    print(f'{outcome.num_fetched:,} files fetched ({in_words(outcome.num_bytes)}), {outcome.num_there:,} were there')
    if outcome.failed:
        print(f'{len(outcome.failed):,} could not be fetched: {download.failures_path}', file=sys.stderr)
        raise SystemExit(1)


def main() -> None:
    args = parse_arguments()
    try:
        with exits_cleanly():
            run(args, Outcome())
    except KeyboardInterrupt:
        print('\nstopped; what has arrived is kept, and the same command goes on from it', file=sys.stderr)
        # A worker may wait for a silent server; what it is at is as safe as after a kill.
        sys.stderr.flush()
        os._exit(130)


if __name__ == '__main__':
    main()
