"""Curves of the training and validation loss, drawn from a run's own log of scalars."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from hierseg.errors import ConfigError
from hierseg.files import write_atomically
from hierseg.formats.json_files import is_number, parse_json
from hierseg.formats.reading import reading, shown
from hierseg.registry import HOOKS

TRAINING, VALIDATION = '#2563eb', '#ea580c'
MARKED = 30
"""Curves of up to this many epochs have each of them marked."""
LONGEST_NAME, MOST_LAYERS = 100, 24
"""Characters of a loss's name in a log, and panels of a picture: more take minutes to draw, and nobody reads them."""


@dataclass(frozen=True)
class LossCurves:
    """Losses by epoch, counted from 1 through the whole run: means of the logged training losses, validation losses.

    They are of one layer, by its name, or of a model that is trained as a whole, whose name is ''.
    """

    name: str
    training: Mapping[int, float]
    validation: Mapping[int, float]


def read_losses(work_dir: Path) -> list[LossCurves]:
    """The curves of the run in a work directory, in the order of training.

    Entries that a start logged beyond the point from which the next one went on are left out, as is everything that an
    earlier run in the same directory logged.

    Returns:
        An entry for each layer, or a single one; empty before the first loss is logged.

    Raises:
        ConfigError: If a log is damaged, or has losses of more layers than a picture can show.
    """
    layers: dict[str, tuple[dict[int, list[float]], dict[int, float]]] = {}
    for _, epoch, losses in _without_repeats(_losses(entry for start in logged_starts(work_dir) for entry in start)):
        # A layer's losses also stand under 'loss', which serves for a model as a whole only.
        names = [key for key in losses if '/' in key.removeprefix('val/')] or [*losses]
        for key in names:
            name = key.removeprefix('val/').removesuffix('loss').removesuffix('/')
            training, validation = layers.setdefault(name, ({}, {}))
            if key.startswith('val/'):
                validation[epoch] = losses[key]
            else:
                training.setdefault(epoch, []).append(losses[key])
    if len(layers) > MOST_LAYERS:
        what = f'the logs have losses of {len(layers)} layers, beginning with {", ".join([*layers][:3])}'
        raise ConfigError(what, where=str(work_dir), fix=f'Only {MOST_LAYERS} can be drawn.')
    return [
        LossCurves(name, {epoch: float(np.mean(values)) for epoch, values in training.items()}, validation)
        for name, (training, validation) in layers.items()
    ]


def logged_starts(work_dir: Path) -> list[list[dict[str, Any]]]:
    """Entries of the log of scalars for each start of a run, whose folders are named by time stamp.

    Raises:
        ConfigError: If a log is damaged elsewhere than in the last line, which a kill cuts off.
    """
    starts = []
    fix = 'Take the line out of the log, or the log out of the work directory.'
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        with reading(file, ConfigError, fix=fix):
            lines = file.read_bytes().split(b'\n')
        while lines and not lines[-1].strip():
            lines.pop()
        entries = []
        for number, line in enumerate(lines, 1):
            try:
                entry = parse_json(line, where=f'{file}, line {number}', error=ConfigError, fix=fix)
            except ConfigError:
                if number < len(lines):
                    raise
                continue
            if not isinstance(entry, dict) or not all(_is_entry(key, entry[key]) for key in entry if _counts(key)):
                what = f'{shown(entry)} is no entry of a log of scalars'
                raise ConfigError(what, where=f'{file}, line {number}', fix=fix)
            entries.append(entry)
        starts.append(entries)
    return starts


def _counts(key: str) -> bool:
    return key in ('iter', 'epoch', 'time', 'loss') or key.endswith('/loss')


def _is_entry(key: str, value: object) -> bool:
    """True for numbers under a short name; nan is one, too, which the losses of a run become that diverges."""
    return len(key) <= LONGEST_NAME and (is_number(value) or (isinstance(value, float) and not isfinite(value)))


def _losses(entries: Iterable[dict[str, Any]]) -> Iterator[tuple[int, int, dict[str, float]]]:
    """Iteration, epoch and losses of every entry that has losses."""
    for entry in entries:
        found = {
            key.removeprefix('train/'): value for key, value in entry.items() if key == 'loss' or key.endswith('/loss')
        }
        if found and {'iter', 'epoch'} <= entry.keys():
            yield entry['iter'], entry['epoch'], found


def _without_repeats(entries: Iterable[tuple[int, int, dict[str, float]]]) -> list[tuple[int, int, dict[str, float]]]:
    """The entries without those that a later start of the run has written again."""

    def place(entry: tuple[int, int, dict[str, float]]) -> tuple[int, bool]:
        # Within an iteration, training comes before validation.
        return entry[0], any(key.startswith('val/') for key in entry[2])

    kept: list[tuple[int, int, dict[str, float]]] = []
    for entry in entries:
        while kept and place(kept[-1]) >= place(entry):
            kept.pop()
        kept.append(entry)
    return kept


def draw_losses(curves: list[LossCurves]) -> bytes:
    """A PNG with a panel for each layer, at least one: mean training loss and validation loss by epoch."""
    figure = Figure(figsize=(6.4 * len(curves), 4.2), layout='constrained')
    for axes, curve in zip(np.atleast_1d(figure.subplots(1, len(curves))), curves, strict=True):
        _draw(axes, curve)
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=110)
    return content.getvalue()


def _draw(axes: Axes, curve: LossCurves) -> None:
    # Epochs of the layer itself, as its settings count them.
    before = min([*curve.training, *curve.validation]) - 1
    for label, values, color in (('training', curve.training, TRAINING), ('validation', curve.validation, VALIDATION)):
        epochs = sorted(values)
        marker = 'o' if len(epochs) <= MARKED else ''
        x, y = [epoch - before for epoch in epochs], [values[epoch] for epoch in epochs]
        axes.plot(x, y, color=color, label=label, linewidth=1.6, marker=marker, markersize=4)
    axes.set_title(curve.name.replace('layer', 'Layer ') or 'Loss', loc='left')
    axes.set_xlabel('epoch')
    axes.set_ylabel('loss')
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])  # the first point is often the highest
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis='y', color='#e4e4e7', linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False)


@HOOKS.register_module()
class LossCurvesHook(Hook):
    """After every epoch, draws ``loss_curves.png`` beside the log, over all starts of the run.

    Needs the ``LocalVisBackend``, which writes the scalars that are drawn; ``ValidationLossHook`` gives the
    curve of the validation loss.
    """

    priority = 'LOWEST'

    @master_only
    def after_train_epoch(self, runner: Runner) -> None:
        """Reads and draws."""
        try:
            curves = read_losses(Path(runner.work_dir))
        except ConfigError as error:  # a damaged log of an earlier start is no reason to stop
            runner.logger.warning('%s', error)
            return
        if curves:
            write_atomically(draw_losses(curves), Path(runner.log_dir) / 'loss_curves.png')
