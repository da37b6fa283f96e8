"""Which tensors of a checkpoint a model takes, and why not the others.

Names are those of tensors in a model without distributed wrappers, such as ``roi_head.bbox_head.fc_cls.weight``.
"""

from __future__ import annotations

import csv
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from enum import Enum
from io import StringIO
from typing import Any, NamedTuple

from torch import Tensor

from hierseg.errors import ConfigError

Shape = tuple[int, ...]

SHOWN = 3
"""An error names this many of the tensors that do not fit."""


class Fate(str, Enum):
    """What becomes of a tensor."""

    TAKEN = 'taken'
    OTHER_SHAPE = 'skipped: other shape'
    MISSING = 'not in the checkpoint'
    UNUSED = 'skipped: not in the model'


class TensorFit(NamedTuple):
    """One tensor of the model, of the checkpoint, or of both.

    Attributes:
        name: In the model; empty if it is not there.
        source: In the checkpoint; empty if it is not there.
        shape: In the model.
        source_shape: In the checkpoint.
        fate: What becomes of it.
    """

    name: str
    source: str
    shape: Shape
    source_shape: Shape
    fate: Fate

    def __str__(self) -> str:
        if self.fate is Fate.OTHER_SHAPE:
            return f'{self.name}: {self.source_shape} in the checkpoint, {self.shape} in the model'
        return f'{self.name or self.source}: {self.fate.value}'


def weights_of(checkpoint: Any, *, where: str) -> OrderedDict[str, Any]:
    """The tensors of a checkpoint by name, whether it has more than tensors or not, or was saved in a wrapper.

    Raises:
        ConfigError: It has none.
    """
    whole = checkpoint if isinstance(checkpoint, dict) else {}
    found = whole.get('state_dict', whole)
    weights: OrderedDict[str, Any] = OrderedDict(
        (name.removeprefix('module.'), value) for name, value in found.items() if hasattr(value, 'shape')
    )
    if not weights:
        raise ConfigError('the checkpoint has no weights', where=where, fix='It needs a state_dict.')
    versions = getattr(found, '_metadata', {})
    weights._metadata = {name.removeprefix('module.'): value for name, value in versions.items()}  # type: ignore[attr-defined]
    return weights


def fit_tensors(
    model: Mapping[str, Tensor], checkpoint: Mapping[str, Tensor], *, parts: Sequence[str] = ()
) -> list[TensorFit]:
    """Matches tensors by name and shape.

    Args:
        model: Tensors of the model by name.
        checkpoint: Tensors of the checkpoint by name.
        parts: Parts of the model that are models of their own, such as ``layer0``. If the checkpoint names none of
            them, it is of one such model, and every part takes its tensors.

    Returns:
        The model's tensors in its order, then what is left of the checkpoint's in its order.
    """
    whole = not parts or any(name.startswith(tuple(f'{part}.' for part in parts)) for name in checkpoint)
    fits = []
    for name, tensor in model.items():
        source = name if whole else _within_part(name, parts)
        shape = tuple(tensor.shape)
        if source not in checkpoint:
            fits.append(TensorFit(name, '', shape, (), Fate.MISSING))
            continue
        source_shape = tuple(checkpoint[source].shape)
        fate = Fate.TAKEN if source_shape == shape else Fate.OTHER_SHAPE
        fits.append(TensorFit(name, source, shape, source_shape, fate))
    used = {fit.source for fit in fits}
    unused = [name for name in checkpoint if name not in used]
    return fits + [TensorFit('', name, (), tuple(checkpoint[name].shape), Fate.UNUSED) for name in unused]


def fitted(
    model: Mapping[str, Tensor], checkpoint: Mapping[str, Tensor], fits: Sequence[TensorFit]
) -> OrderedDict[str, Tensor]:
    """The model's tensors by name: those of the checkpoint where they are taken, else its own.

    Module versions that PyTorch keeps beside the tensors go with them.
    """
    state: OrderedDict[str, Any] = OrderedDict()
    versions = getattr(checkpoint, '_metadata', {})
    metadata = OrderedDict(getattr(model, '_metadata', {}))
    for fit in fits:
        if fit.fate is Fate.UNUSED:
            continue
        state[fit.name] = checkpoint[fit.source] if fit.fate is Fate.TAKEN else model[fit.name]
        module, source = fit.name.rpartition('.')[0], fit.source.rpartition('.')[0]
        if fit.fate is Fate.TAKEN and source in versions:
            metadata[module] = versions[source]
    state._metadata = metadata  # type: ignore[attr-defined]  # where PyTorch and MMEngine look for it
    return state


def require_all(fits: Sequence[TensorFit], *, where: str) -> None:
    """Requires that every tensor of the model is taken.

    Raises:
        ConfigError: It is not; the first ones are named.
    """
    # Checkpoints of early PyTorch do not have the counters; batch normalisation does not need them to test.
    bad = [fit for fit in fits if fit.name and fit.fate is not Fate.TAKEN and 'num_batches_tracked' not in fit.name]
    if bad:
        some = '; '.join(map(str, bad[:SHOWN])) + ('; …' if len(bad) > SHOWN else '')
        raise ConfigError(
            f'the checkpoint is of another model: {len(bad)} tensors do not fit ({some})',
            where=where,
            fix='Use the config that it was trained with.',
        )


def summary(fits: Sequence[TensorFit], *, parts: Sequence[str] = ()) -> str:
    """A line for each module, and one for each tensor of the model that keeps its initial value."""
    own = [fit for fit in fits if fit.name]
    total, taken = Counter(_module(fit.name, parts) for fit in own), Counter[str]()
    taken.update(_module(fit.name, parts) for fit in own if fit.fate is Fate.TAKEN)
    width = max(map(len, total), default=0)
    lines = [f'{taken.total()} of {total.total()} tensors of the model taken']
    lines += [f'  {module:<{width}}  {taken[module]} of {count}' for module, count in total.items()]
    kept = [fit for fit in own if fit.fate is not Fate.TAKEN]
    if kept:
        lines += [f'{len(kept)} keep their initial values', *(f'  {fit}' for fit in kept)]
    unused = [fit.source for fit in fits if not fit.name]
    if unused:
        lines += [f'{len(unused)} of the checkpoint are not in the model', *(f'  {name}' for name in unused)]
    return '\n'.join(lines)


def as_csv(fits: Sequence[TensorFit]) -> str:
    """All tensors as a table."""
    text = StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['tensor', 'in_checkpoint', 'shape', 'shape_in_checkpoint', 'fate'])
    writer.writerows([fit.name, fit.source, _text(fit.shape), _text(fit.source_shape), fit.fate.value] for fit in fits)
    return text.getvalue()


def _within_part(name: str, parts: Sequence[str]) -> str:
    part, _, rest = name.partition('.')
    return rest if part in parts else name


def _module(name: str, parts: Sequence[str]) -> str:
    """Such as ``backbone``, ``roi_head.mask_head`` or ``layer0.backbone``."""
    steps = name.split('.')[:-1]
    length = 1 + (bool(steps) and steps[0] in parts)
    length += steps[length - 1 : length] == ['roi_head']
    return '.'.join(steps[:length])


def _text(shape: Shape) -> str:
    return '×'.join(map(str, shape))
