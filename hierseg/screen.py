"""What a run says on the screen before its first step: only what the reader can act on.

MMEngine and mmdet say some 700 lines: environment, config, hooks, notes about optional packages. The log file keeps all
that went to the log. ``HIERSEG_VERBOSE=1`` in the environment shows it on the screen, too. Importing this imports mmdet
without its notes.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from contextlib import redirect_stdout
from typing import Any

from mmengine.logging import MMLogger
from mmengine.runner import Runner

VERBOSE = os.environ.get('HIERSEG_VERBOSE', '0') == '1'
LOG_ONLY = (
    '\n' + '-' * 60 + '\nSystem environment:',
    'Config:\n',
    'Hooks will be executed in the following order:\n',
    'Distributed training is not used, all SyncBatchNorm',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)
"""How messages begin that go to the log file alone; another wording in a later release is shown."""
NOTE = 'Could not import OneDL. Skipping OneDL datasets.'


class QuietRunner(Runner):
    """MMEngine's runner, with a console that leaves :data:`LOG_ONLY` to the log file."""

    def build_logger(self, *args: Any, **options: Any) -> MMLogger:
        """Builds the logger as always, with a filter on its console."""
        logger = super().build_logger(*args, **options)
        for handler in logger.handlers:
            if not VERBOSE and not isinstance(handler, logging.FileHandler):
                handler.addFilter(lambda record: not record.getMessage().startswith(LOG_ONLY))
        logger.info(f'log, with environment and config: {logger.log_file}')
        return logger


def _import_mmdet() -> None:
    """Imports what of mmdet prints at its import, and repeats all but the notes."""
    warnings.filterwarnings('ignore', message='faster_coco_eval is not installed')
    with redirect_stdout(io.StringIO()) as said:
        import mmdet.evaluation  # noqa: F401
    sys.stdout.writelines(line for line in said.getvalue().splitlines(keepends=True) if line.strip() != NOTE)


if not VERBOSE:
    _import_mmdet()
