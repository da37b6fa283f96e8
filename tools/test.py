"""Tests a checkpoint of the model that a config describes, and prints its scores."""

from __future__ import annotations

import argparse
import os

from hierseg.arguments import add_config_options
from hierseg.errors import exits_cleanly
from hierseg.threads import choose_threads


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--work-dir', help='where the log and results.json, the scores, go; default ./work_dirs/<config name>'
    )
    parser.add_argument('--out', metavar='FILE.pkl', help='dump the predictions into a pickle file')
    parser.add_argument(
        '--coco-results', metavar='FILE.json', help='write the detections as COCO results, which other tools read'
    )
    parser.add_argument('--show', action='store_true', help='show the predictions in windows')
    parser.add_argument(
        '--show-dir', help='write pictures here; a relative folder lies in the work directory, under the timestamp'
    )
    parser.add_argument('--wait-time', type=float, default=2, help='how long a window stays, in seconds')
    add_config_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # Given by torch.distributed.launch; torchrun sets LOCAL_RANK instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    choose_threads()
    from hierseg.apis import end_process, evaluate

    os.environ.setdefault('LOCAL_RANK', str(arguments.local_rank))
    with exits_cleanly():
        evaluate(
            arguments.config,
            arguments.checkpoint,
            work_dir=arguments.work_dir,
            out=arguments.out,
            show=arguments.show,
            show_dir=arguments.show_dir,
            wait_time=arguments.wait_time,
            coco_results=arguments.coco_results,
            options=arguments.cfg_options,
            launcher=arguments.launcher,
        )
    end_process(arguments.launcher)


if __name__ == '__main__':
    main()
