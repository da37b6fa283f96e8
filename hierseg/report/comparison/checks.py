"""Whether the parts of a comparison fit together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from hierseg.errors import EvaluationError

if TYPE_CHECKING:
    from hierseg.report.comparison.document import (
        ComparedImage,
        Comparison,
        Metric,
        Panel,
        System,
    )

JPEG_START = b'\xff\xd8\xff'
COLOR = re.compile('#[0-9a-f]{6}')


def check_comparison(document: Comparison) -> None:
    """Checks names, lengths, labels and keys.

    Raises:
        EvaluationError: Says what does not fit, and where.
    """
    if not document.systems or not document.metrics:
        raise EvaluationError('no systems or no metrics', where='comparison', fix='Give at least one of each.')
    names = [system.name for system in document.systems]
    _unique(names, 'system names')
    _unique([metric.key for metric in document.metrics], 'metric keys')
    _unique([kind.key for kind in document.error_kinds], 'error kinds')
    _unique([image.image_id for image in document.images], 'image ids')
    for metric in document.metrics:
        _check_format(metric)
    size = document.taxonomy.num_classes
    _has_length(document.counts.objects, size, where='counts of objects')
    if document.counts.train_images is not None:
        _has_length(document.counts.train_images, size, where='counts of training images')
    keys = {metric.key for metric in document.metrics}
    _known(document.differences, names[1:], where='differences', what='further systems')
    for name, differences in document.differences.items():
        _known(differences, keys, where=f'differences of {name!r}', what='metrics')
    kinds = {kind.key for kind in document.error_kinds}
    for system in document.systems:
        _check_system(system, keys=keys, kinds=kinds, size=size)
    for image in document.images:
        _check_image(image, names=names, kinds=kinds, size=size)


def _check_format(metric: Metric) -> None:
    try:
        f'{-1.5:+{metric.format}}'
    except ValueError:
        raise EvaluationError(
            f'{metric.format!r} is no format of a number', where=f'metric {metric.key!r}', fix="Such as '.3f'."
        ) from None


def _check_system(system: System, *, keys: Iterable[str], kinds: Iterable[str], size: int) -> None:
    where = f'system {system.name!r}'
    _known(system.scores, keys, where=f'{where}, scores', what='metrics')
    _known(system.errors, kinds, where=f'{where}, errors', what='error kinds')
    _has_length(system.class_ap, size, where=f'{where}, class_ap')
    for group, curve in system.precision_recall.items():
        _has_length(curve.precision, len(curve.recall), where=f'{where}, precision at recall of {group!r}')
    if system.operating_curve is not None:
        length = len(system.operating_curve.threshold)
        _has_length(system.operating_curve.correctness, length, where=f'{where}, correctness by threshold')
        _has_length(system.operating_curve.information, length, where=f'{where}, information by threshold')
    for true, named, _ in system.confusion:
        if not (0 <= true < size and -1 <= named < size):
            raise EvaluationError(
                f'a confusion of {true} and {named} among {size} classes',
                where=where,
                fix='Give labels; -1 for the name of an object that was missed.',
            )
    _unique([entry[:2] for entry in system.confusion], f'confusions of system {system.name!r}')


def _check_image(image: ComparedImage, *, names: Sequence[str], kinds: Iterable[str], size: int) -> None:
    where = f'image {image.image_id!r}'
    if set(image.panels) != set(names):
        raise EvaluationError(
            f'panels of {sorted(image.panels)}', where=where, fix=f'Give one for each of {sorted(names)}.'
        )
    if not all(0 <= label < size for label in image.classes):
        raise EvaluationError(f'classes {list(image.classes)} among {size}', where=where, fix='Give labels.')
    for panel in (image.ground_truth, *image.panels.values()):
        _check_panel(panel, kinds=kinds, where=where)


def _check_panel(panel: Panel, *, kinds: Iterable[str], where: str) -> None:
    _known(panel.errors, kinds, where=where, what='error kinds')
    if not panel.picture.startswith(JPEG_START):
        raise EvaluationError('a picture is no JPEG', where=where, fix='Draw it with draw_panel.')
    for path in panel.paths:
        if not COLOR.fullmatch(path.color):
            raise EvaluationError(f'{path.color!r} is no colour', where=where, fix="Such as '#2f6df2'.")


def _unique(values: Sequence[object], what: str) -> None:
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise EvaluationError(f'{what} {repeated} occur twice', where='comparison', fix='Give each of them once.')


def _known(given: Mapping[str, object] | Sequence[str], allowed: Iterable[str], *, where: str, what: str) -> None:
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise EvaluationError(f'{unknown} are no {what} of the comparison', where=where, fix='List them there first.')


def _has_length(values: Sequence[object], length: int, *, where: str) -> None:
    if len(values) != length:
        raise EvaluationError(f'{len(values)} values', where=where, fix=f'Give {length}.')
