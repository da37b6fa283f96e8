"""Calibrates the threshold by which a model backs off to a parent class, for a wanted correctness of its names.

Example:
    python tools/analysis_tools/calibrate.py configs/quickstart/hier_e2e.py work_dirs/hier_e2e/epoch_4.pth \
        --correctness 0.9
"""

from __future__ import annotations

import argparse

from hierseg.arguments import add_config_options
from hierseg.errors import exits_cleanly


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Calibrates the threshold by which a model backs off to a parent class, for a wanted correctness '
        'of its names, on the validation data of the config (the test data where it has no other).'
    )
    parser.add_argument('config', help='config file of an end-to-end model')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--correctness',
        type=float,
        default=0.9,
        metavar='PART',
        help='part of the names that shall be the true class or an ancestor of it; default: 0.9',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.0,
        help='detections whose most probable class is less probable do not count; default: 0',
    )
    parser.add_argument(
        '--work-dir',
        help='where the log, calibration.json and calibration.png go; default ./work_dirs/<config name>',
    )
    add_config_options(parser)
    return parser.parse_args()


@exits_cleanly()
def main() -> None:
    arguments = parse_arguments()
    from hierseg.apis import calibrate

    calibration, work_dir = calibrate(
        arguments.config,
        arguments.checkpoint,
        correctness=arguments.correctness,
        score_threshold=arguments.score_thr,
        work_dir=arguments.work_dir,
        options=arguments.cfg_options,
    )
    print(calibration)
    print(f'all thresholds: {work_dir / "calibration.json"}\npicture:        {work_dir / "calibration.png"}')


if __name__ == '__main__':
    main()
