"""Tells how many images and instances of each class a config's sampler is going to show: text, CSV, JSON and plot."""

from __future__ import annotations

import argparse
from pathlib import Path

from hierseg.arguments import add_config_options
from hierseg.errors import exits_cleanly
from hierseg.files import make_folder, output_folder, write_json
from hierseg.locks import locked


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--compare', action='store_true', help='also show what the alternative samplers would do')
    parser.add_argument(
        '--threshold',
        type=float,
        default=1e-3,
        help="of repeat factors with --compare, where the config's sampler has none; default: %(default)s",
    )
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/sampling_report'), help='folder to write to; default: %(default)s'
    )
    add_config_options(parser)
    return parser.parse_args()


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    from mmengine.registry import init_default_scope

    from hierseg.apis import read_config
    from hierseg.report.class_reports import configured_samplers, plot_sampling_report, sampling_report

    output_folder(args.out)
    config = read_config(args.config, args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmdet'))
    reports = {
        name: sampling_report(sampler, compare=args.compare, threshold=args.threshold)
        for name, sampler in configured_samplers(config).items()
    }
    with locked(make_folder(args.out)):
        for name, report in reports.items():
            if name:
                print(f'== {name}')
            print(report, end='\n\n')
            stem = f'{name}_sampling' if name else 'sampling'
            report.write_csv(args.out / f'{stem}.csv')
            write_json(report.to_json(), args.out / f'{stem}.json')
            plot_sampling_report(report, args.out / f'{stem}.png')
    print(f'every class as CSV, totals as JSON, and a plot: {args.out}')


if __name__ == '__main__':
    main()
