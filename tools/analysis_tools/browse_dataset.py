"""Writes pictures of a data set with the class paths of its instances, after the pipeline of a config."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

from hierseg.arguments import add_config_options
from hierseg.errors import exits_cleanly
from hierseg.files import make_folder
from hierseg.locks import locked


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', nargs='?', help='config file; not needed with --store')
    parser.add_argument('--store', type=Path, help='look at a store as it is, without a config')
    parser.add_argument('--images', type=Path, help='folder of the images of --store')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='train', help='data loader of the config')
    parser.add_argument('--output-dir', type=Path, help='where to write pictures, such as work_dirs/browse')
    parser.add_argument('--not-show', action='store_true', help='open no windows')
    parser.add_argument('--show-interval', type=float, default=2, help='seconds that a window stays')
    parser.add_argument('--max-images', type=int, help='as many images, evenly spaced over the data set')
    add_config_options(parser)
    args = parser.parse_args()
    if (args.config is None) == (args.store is None):
        parser.error('name a config or --store')
    if (args.store is None) != (args.images is None):
        parser.error('--store and --images go together')
    if args.not_show and args.output_dir is None:
        parser.error('--not-show without --output-dir does nothing')
    if args.max_images is not None and args.max_images < 1:
        parser.error('--max-images must be at least 1')
    return args


@exits_cleanly()
def main() -> None:
    args = parse_arguments()
    from mmengine.registry import init_default_scope

    from hierseg.apis import read_config
    from hierseg.report import HierLocalVisualizer
    from hierseg.report.visualizer import browse_dataset, configured_dataset, store_dataset

    init_default_scope('mmdet')
    if args.store is not None:
        dataset = store_dataset(args.store, args.images)
    else:
        config = read_config(args.config, args.cfg_options)
        init_default_scope(config.get('default_scope', 'mmdet'))
        dataset = configured_dataset(config, args.split)
    with nullcontext() if args.output_dir is None else locked(make_folder(args.output_dir)):
        written = browse_dataset(
            dataset,
            HierLocalVisualizer(),
            output_dir=args.output_dir,
            show=not args.not_show,
            show_interval=args.show_interval,
            max_images=args.max_images,
        )
    if written:
        print(f'{len(written)} picture{"s" if len(written) > 1 else ""} written to {args.output_dir}')


if __name__ == '__main__':
    main()
