"""Options of the command line that several tools share."""

from __future__ import annotations

import argparse

from mmengine.config import DictAction


def add_config_options(parser: argparse.ArgumentParser, *, of: str = 'the config') -> None:
    """Adds MMDetection's ``--cfg-options``; parsed, a dictionary of values by dotted key, or None."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help=f'override values of {of}: model.backbone.depth=18, key="[a,b]", key="[(a,b),(c,d)]" (no blanks)',
    )
