"""Exports a trained real-time model as an ONNX file with its taxonomy, and compares both on sample images.

Example:
    python tools/export.py configs/hier_rtmdet_s.py work_dirs/hier_rtmdet_s/epoch_100.pth --out model.onnx \
        --int8 data/openimages/train
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hierseg.arguments import add_config_options
from hierseg.errors import ConfigError, exits_cleanly


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file of a real-time model')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', type=Path, required=True, metavar='MODEL.onnx', help='the file to write')
    parser.add_argument(
        '--int8', metavar='IMAGES', help='folder of images, or glob, by which MODEL.int8.onnx is quantised beside it'
    )
    parser.add_argument(
        '--calibration', type=int, default=64, metavar='N', help='the most images read for --int8; default: %(default)s'
    )
    parser.add_argument(
        '--images', nargs='+', help="files on which both models are compared; of the config's test data if not given"
    )
    parser.add_argument(
        '--samples', type=int, default=8, metavar='N', help='how many of the test data; default: %(default)s'
    )
    add_config_options(parser)
    return parser.parse_args()


@exits_cleanly()
def main() -> None:
    arguments = parse_arguments()
    try:
        from hierseg.apis.export import export
    except ModuleNotFoundError as error:
        raise ConfigError(f'{error.name} is not installed', fix='pip install onnx onnxruntime') from error

    written = export(
        arguments.config,
        arguments.checkpoint,
        arguments.out,
        int8=arguments.int8,
        images=arguments.images,
        samples=arguments.samples,
        calibration=arguments.calibration,
        options=arguments.cfg_options,
    )
    for path, differences in written.items():
        print(f'{path} ({path.stat().st_size / 1e6:.1f} MB): {differences}')


if __name__ == '__main__':
    main()
