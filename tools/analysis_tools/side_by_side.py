"""Prints the scores of several systems side by side and writes them into one file.

Example:
    python tools/analysis_tools/side_by_side.py hier_e2e=work_dirs/hier_e2e/results.json \
        two_layer_ensemble=work_dirs/two_layer_ensemble/results.json --out results.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hierseg.errors import ConfigError, exits_cleanly
from hierseg.files import write_json
from hierseg.report.side_by_side import read_scores, scores_table


def named_file(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition('=')
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f'{text!r} is not NAME=results.json')
    return name, Path(path)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'systems', nargs='+', type=named_file, metavar='NAME=FILE', help='results.json that tools/test.py wrote'
    )
    parser.add_argument('--out', type=Path, metavar='JSON', help='file to write: the scores of each system by its name')
    return parser.parse_args()


@exits_cleanly()
def main() -> None:
    args = parse_args()
    systems = {name: read_scores(path) for name, path in args.systems}
    if args.out is not None:
        write_json(systems, args.out, error=ConfigError)
    print(scores_table(systems))


if __name__ == '__main__':
    main()
