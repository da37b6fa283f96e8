"""``python -m hierseg.store STORE``: says what is in a store and whether it is whole."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from hierseg.errors import exits_cleanly
from hierseg.store.integrity import DEFAULT_MASKS, DEFAULT_TOLERANCE, check_store
from hierseg.store.store import Store


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog='python -m hierseg.store',
        description='Says what is in a store, and checks that it is whole.',
        epilog='Exit status: 0 whole, 1 damaged (all damage is told), 2 no store, or of another format version.',
    )
    parser.add_argument('store', metavar='STORE', help='folder of the store')
    masks = parser.add_mutually_exclusive_group()
    masks.add_argument(
        '--masks', type=int, default=DEFAULT_MASKS, metavar='N', help='decode so many masks (default: %(default)s)'
    )
    masks.add_argument('--all', action='store_true', help='decode all masks')
    parser.add_argument('--seed', type=int, default=0, help='chooses the masks (default: %(default)s)')
    parser.add_argument(
        '--tolerance',
        type=float,
        default=DEFAULT_TOLERANCE,
        metavar='SHARE',
        help='how far the tight box of a mask may be from the annotated box, as a share of its sides; 2 pixels are '
        'always allowed (default: %(default)s)',
    )
    parser.add_argument('--json', action='store_true', help='print the report as JSON')
    return parser.parse_args(arguments)


@exits_cleanly()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    options = parse_arguments(arguments)
    report = check_store(
        Store.open(options.store),
        masks=None if options.all else options.masks,
        tolerance=options.tolerance,
        seed=options.seed,
        progress=True,
    )
    print(json.dumps(report.to_json(), ensure_ascii=False, indent=1) if options.json else report)
    return 1 if report.damage else 0


if __name__ == '__main__':
    sys.exit(main())
