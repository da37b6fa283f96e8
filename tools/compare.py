"""Compares systems on the same images and writes a page that says which is better, where, and at what cost.

Example:
    python tools/compare.py --out work_dirs/comparison \
        --run ensemble=configs/two_layer_ensemble.py,work_dirs/two_layer_ensemble/epoch_310.pth \
        --run e2e=configs/hier_e2e.py,work_dirs/hier_e2e/epoch_12.pth
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from hierseg.arguments import add_config_options
from hierseg.errors import exits_cleanly
from hierseg.limits import add_max_pixels
from hierseg.threads import choose_threads


def trained_run(text: str) -> tuple[str, ...]:
    name, _, files = text.partition('=')
    has_results = files.endswith('.json')
    config, *rest = files.rsplit(',', 2 if has_results else 1)  # a config's path may have commas
    run = (name, config, *rest)
    if len(rest) != 1 + has_results or not all(run) or rest[0].endswith('.json'):
        raise argparse.ArgumentTypeError(f'{text!r} is not NAME=CONFIG,CHECKPOINT[,RESULTS.json]')
    return run


def submission(text: str) -> tuple[str, str]:
    name, separator, path = text.partition('=')
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f'{text!r} is not NAME=PREDICTIONS.csv or NAME=RESULTS.json')
    return name, path


def number_of_pictures(text: str) -> int | None:
    """None for all."""
    if text == 'all':
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is neither all nor a number')
    return int(text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--run', dest='sources', action='append', type=trained_run, metavar='NAME=CONFIG,CHECKPOINT[,RESULTS.json]',
        help='a trained system, and what test.py --coco-results wrote of it, or it is tested; the first system is what '
        'the others are compared to',
    )  # fmt: skip
    parser.add_argument(
        '--predictions', dest='sources', action='append', type=submission, metavar='NAME=FILE',
        help='detections of any program instead: COCO results (.json) or a submission CSV',
    )  # fmt: skip
    parser.add_argument(
        '--out', type=Path, required=True, help='folder of index.html, results.json, table.md and tables/*.csv'
    )
    parser.add_argument('--store', type=Path, help="the ground truth; that of the first run's test data if not given")
    parser.add_argument('--images', type=Path, help='image folder for the pictures, where no system is a run')
    parser.add_argument('--train-store', type=Path, help='training data, for class frequencies; else of the first run')
    parser.add_argument('--title', default='Which system is better?', help='default: %(default)s')
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='of kinds of error, and of pictures at first; default: 0.3'
    )
    parser.add_argument(
        '--pictures', type=number_of_pictures, default=200, metavar='all|N', help='images shown; default: 200'
    )
    parser.add_argument('--timed-images', type=int, default=20, help='that latency is measured on; default: 20')
    parser.add_argument('--seed', type=int, default=0, help='of the choice of pictures; default: 0')
    add_max_pixels(parser)
    add_config_options(parser, of='all configs')
    arguments = parser.parse_args()
    if not arguments.sources:
        parser.error('name at least one system with --run or --predictions')
    return arguments


@exits_cleanly()
def main() -> None:
    arguments = parse_arguments()
    choose_threads()
    from hierseg.apis import compare
    from hierseg.apis.evaluated_systems import PredictionsSource, RunSource

    program = 'python tools/compare.py' if sys.argv[0].endswith('.py') else sys.argv[0]
    page = compare(
        [PredictionsSource(*source) if len(source) == 2 else RunSource(*source) for source in arguments.sources],
        arguments.out,
        store=arguments.store,
        images=arguments.images,
        train_store=arguments.train_store,
        title=arguments.title,
        score_threshold=arguments.score_thr,
        num_pictures=arguments.pictures,
        timed_images=arguments.timed_images,
        seed=arguments.seed,
        max_pixels=arguments.max_pixels,
        options=arguments.cfg_options,
        command=f'{program} {shlex.join(sys.argv[1:])}',
    )
    print((page.parent / 'table.md').read_text(encoding='utf-8'))
    print(f'the page ({page.stat().st_size / 1e6:.1f} MB): {page}')


if __name__ == '__main__':
    main()
