"""Trains the model that a config describes."""

from __future__ import annotations

import argparse
import os

from hierseg.arguments import add_config_options
from hierseg.errors import exits_cleanly
from hierseg.threads import choose_threads


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='where logs and checkpoints go; default ./work_dirs/<config name>')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or, without a value, from the latest one in the work directory',
    )
    add_config_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # Given by torch.distributed.launch; torchrun sets LOCAL_RANK instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    choose_threads()
    from hierseg.apis import end_process, train

    os.environ.setdefault('LOCAL_RANK', str(arguments.local_rank))
    with exits_cleanly():
        train(
            arguments.config,
            work_dir=arguments.work_dir,
            amp=arguments.amp,
            auto_scale_lr=arguments.auto_scale_lr,
            resume=arguments.resume,
            options=arguments.cfg_options,
            launcher=arguments.launcher,
        )
    end_process(arguments.launcher)


if __name__ == '__main__':
    main()
