"""Tells what the layers of the two-layer ensemble are trained on: images, instances and painted boxes."""

from __future__ import annotations

import argparse
from pathlib import Path

from hierseg.errors import exits_cleanly
from hierseg.files import make_folder, output_folder
from hierseg.locks import locked


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('store', type=Path, help='folder of the store of the training split')
    parser.add_argument('--images-per-class', type=int, default=1500, help='the cap; default: 1500')
    parser.add_argument('--seed', type=int, default=0, help='of the cap; default: 0')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/layer_report'),
        help='folder for layer0 and layer1 as CSV and PNG; default: %(default)s',
    )
    return parser.parse_args()


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    from hierseg.report.class_reports import layer_reports, plot_layer_report
    from hierseg.store import Store

    output_folder(args.out)
    reports = layer_reports(Store.open(args.store), images_per_class=args.images_per_class, seed=args.seed)
    with locked(make_folder(args.out)):
        for report in reports:
            print(report, end='\n\n')
            report.write_csv(args.out / f'layer{report.view.layer}.csv')
            plot_layer_report(report, args.out / f'layer{report.view.layer}.png')
    print(f'every class as CSV, and plots: {args.out}')


if __name__ == '__main__':
    main()
