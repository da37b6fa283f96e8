"""Checkpoints that are whole or not there whenever a run is killed, and the tensors that a model takes from one.

Names are those of tensors in a model without distributed wrappers, such as ``roi_head.bbox_head.fc_cls.weight``.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.fileio.backends import register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from mmengine.runner.checkpoint import get_state_dict
from torch import Tensor

from hierseg.engine.layerwise import trained_parts, unwrapped
from hierseg.engine.resuming import FROM_WEIGHTS, require_resumable
from hierseg.errors import ConfigError
from hierseg.files import csv_text, write_atomically
from hierseg.models.two_layer_ensemble import LAYERS, TwoLayerEnsemble
from hierseg.registry import HOOKS

Shape = tuple[int, ...]

BACKEND = 'hierseg.atomic'
TABLE = 'load_from.csv'
SHOWN = 3  # tensors that an error names


class TensorStatus(str, Enum):
    """Use of a tensor of a checkpoint or of a model."""

    TAKEN = 'taken'
    OTHER_SHAPE = 'skipped: other shape'
    OTHER_TYPE = 'skipped: other type of numbers'
    MISSING = 'not in the checkpoint'
    UNUSED = 'skipped: not in the model'


class TensorFit(NamedTuple):
    """One tensor of the model, of the checkpoint, or of both; names are empty where it is not there."""

    name: str  # in the model
    source: str  # in the checkpoint
    shape: Shape
    source_shape: Shape
    status: TensorStatus

    def __str__(self) -> str:
        if self.status is TensorStatus.OTHER_SHAPE:
            return f'{self.name}: {self.source_shape} in the checkpoint, {self.shape} in the model'
        return f'{self.name or self.source}: {self.status.value}'


def weights_of(checkpoint: Any, *, where: str) -> OrderedDict[str, Any]:
    """The tensors of a checkpoint by name, whether it has more than tensors or not, or was saved in a wrapper.

    Raises:
        ConfigError: There are none, or some are of a kind that no weights are, such as sparse ones.
    """
    whole = checkpoint if isinstance(checkpoint, dict) else {}
    found = whole.get('state_dict', whole)
    tensors = found.items() if isinstance(found, dict) else ()
    weights: OrderedDict[str, Any] = OrderedDict(
        (name.removeprefix('module.'), value)
        for name, value in tensors
        if isinstance(name, str) and isinstance(value, Tensor)
    )
    if not weights:
        raise ConfigError('the checkpoint has no weights', where=where, fix='It needs a state_dict.')
    for name, value in weights.items():
        is_plain = value.layout is torch.strided and not value.is_meta and not value.is_quantized
        # A stride of 0 claims values that are not in the file.
        if not is_plain or any(not step and size > 1 for step, size in zip(value.stride(), value.shape, strict=True)):
            what = f'{name} is no plain tensor of numbers'
            raise ConfigError(what, where=where, fix='Name a checkpoint of a training.')
    versions = getattr(found, '_metadata', None)
    weights._metadata = {  # type: ignore[attr-defined]
        name.removeprefix('module.'): value
        for name, value in (versions if isinstance(versions, dict) else {}).items()
        if isinstance(name, str) and isinstance(value, dict)
    }
    return weights


def meta_of(checkpoint: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """What a checkpoint says about itself, and about its data under ``dataset_meta``, with empty dicts for nothing.

    Raises:
        ConfigError: One of both is no dict.
    """
    meta = checkpoint.get('meta') or {}
    data = (meta.get('dataset_meta') or {}) if isinstance(meta, dict) else None
    if not isinstance(data, dict):
        what = "what the checkpoint says about itself, its 'meta', is damaged"
        raise ConfigError(what, where=where, fix='Use an earlier one.')
    return {**meta, 'dataset_meta': data}


def require_finite(tensors: Mapping[str, Any], *, where: str) -> None:
    """Raises a ConfigError that names the first tensors with values that are NaN or infinite, if there are any.

    All are looked at before the first answer is waited for, as answers of a GPU take time.
    """
    floats = {name: value for name, value in tensors.items() if isinstance(value, Tensor) and value.is_floating_point()}
    finite = {name: torch.isfinite(value).all() for name, value in floats.items()}
    bad = [name for name, is_finite in finite.items() if not is_finite]
    if bad:
        some = ', '.join(bad[:SHOWN]) + (', …' if len(bad) > SHOWN else '')
        what = f'{len(bad)} of {len(floats)} tensors have values that are NaN or infinite ({some})'
        raise ConfigError(what, where=where, fix='Use an earlier checkpoint, and train with a lower learning rate.')


def fit_tensors(
    model: Mapping[str, Tensor], checkpoint: Mapping[str, Tensor], *, parts: Sequence[str] = ()
) -> list[TensorFit]:
    """Matches tensors by name and shape: the model's in its order, then what is left of the checkpoint's in its order.

    Parts of the model, such as ``layer0``, are models of their own. If the checkpoint names none of them, it is of one
    such model, and every part takes its tensors.
    """
    whole = not parts or any(name.startswith(tuple(f'{part}.' for part in parts)) for name in checkpoint)
    fits = []
    for name, tensor in model.items():
        part, _, rest = name.partition('.')
        source, shape = rest if part in parts and not whole else name, tuple(tensor.shape)
        if source in checkpoint:
            source_shape = tuple(checkpoint[source].shape)
            status = TensorStatus.TAKEN if source_shape == shape else TensorStatus.OTHER_SHAPE
            if status is TensorStatus.TAKEN and _kind(checkpoint[source]) != _kind(tensor):
                status = TensorStatus.OTHER_TYPE
            fits.append(TensorFit(name, source, shape, source_shape, status))
        else:
            fits.append(TensorFit(name, '', shape, (), TensorStatus.MISSING))
    used = {fit.source for fit in fits}
    unused = [name for name in checkpoint if name not in used]
    return fits + [TensorFit('', name, (), tuple(checkpoint[name].shape), TensorStatus.UNUSED) for name in unused]


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    """Real, complex or whole numbers; how many bits they have does not matter."""
    return tensor.is_floating_point(), tensor.is_complex()


def fitted(
    model: Mapping[str, Tensor], checkpoint: Mapping[str, Tensor], fits: Sequence[TensorFit]
) -> OrderedDict[str, Tensor]:
    """The model's tensors by name, those of the checkpoint where they are taken, and the versions of their modules."""
    state: OrderedDict[str, Any] = OrderedDict()
    versions = getattr(checkpoint, '_metadata', {})
    metadata = OrderedDict(getattr(model, '_metadata', {}))
    for fit in fits:
        is_taken, source = fit.status is TensorStatus.TAKEN, fit.source.rpartition('.')[0]
        if fit.name:
            state[fit.name] = checkpoint[fit.source] if is_taken else model[fit.name]
        if is_taken and source in versions:
            metadata[fit.name.rpartition('.')[0]] = versions[source]
    state._metadata = metadata  # type: ignore[attr-defined]  # where PyTorch and MMEngine look for it
    return state


def require_all(fits: Sequence[TensorFit], *, where: str) -> None:
    """Raises a ConfigError that names the first tensors of the model that are not taken, if there are any."""
    # Checkpoints of early PyTorch do not have the counters; batch normalisation does not need them to test.
    own = [fit for fit in fits if fit.name and 'num_batches_tracked' not in fit.name]
    bad = [fit for fit in own if fit.status is not TensorStatus.TAKEN]
    if bad:
        some = '; '.join(map(str, bad[:SHOWN])) + ('; …' if len(bad) > SHOWN else '')
        what = f'the checkpoint is of another model: {len(bad)} tensors do not fit ({some})'
        raise ConfigError(what, where=where, fix='Use the config that it was trained with.')


def fit_summary(fits: Sequence[TensorFit], *, parts: Sequence[str] = ()) -> str:
    """A line for each module, and one for each tensor of the model that keeps its initial value."""
    own = [fit for fit in fits if fit.name]
    total, taken = Counter(_module(fit.name, parts) for fit in own), Counter[str]()
    taken.update(_module(fit.name, parts) for fit in own if fit.status is TensorStatus.TAKEN)
    width = max(map(len, total), default=0)
    lines = [f'{taken.total()} of {total.total()} tensors of the model taken']
    lines += [f'  {module:<{width}}  {taken[module]} of {count}' for module, count in total.items()]
    kept = [fit for fit in own if fit.status is not TensorStatus.TAKEN]
    if kept:
        lines += [f'{len(kept)} keep their initial values', *(f'  {fit}' for fit in kept)]
    unused = [fit.source for fit in fits if not fit.name]
    if unused:
        lines += [f'{len(unused)} of the checkpoint are not in the model', *(f'  {name}' for name in unused)]
    return '\n'.join(lines)


def as_csv(fits: Sequence[TensorFit]) -> str:
    """All tensors as a table."""
    rows = [(fit.name, fit.source, _text(fit.shape), _text(fit.source_shape), fit.status.value) for fit in fits]
    return csv_text([('tensor', 'in_checkpoint', 'shape', 'shape_in_checkpoint', 'status'), *rows])


def _module(name: str, parts: Sequence[str]) -> str:
    """Such as ``backbone``, ``roi_head.mask_head`` or ``layer0.backbone``."""
    steps = name.split('.')[:-1]
    length = 1 + (bool(steps) and steps[0] in parts)
    length += steps[length - 1 : length] == ['roi_head']
    return '.'.join(steps[:length])


def _text(shape: Shape) -> str:
    return '×'.join(map(str, shape))


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local files, written whole or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:  # noqa: D102
        write_atomically(obj, filepath)


register_backend(BACKEND, AtomicLocalBackend)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, of which a kill leaves a checkpoint to resume from at every moment.

    MMEngine removes the oldest checkpoint, then writes the new one and then its name into ``last_checkpoint``:
    a run that is killed meanwhile can be left with half a file, an empty name, or nothing. Here the new one is
    written atomically first, then its name, and then the oldest is removed. Arguments are those of ``CheckpointHook``;
    a remote ``out_dir`` is written as MMEngine does.
    """

    def __init__(self, **kwargs: Any) -> None:
        local = '://' not in str(kwargs.get('out_dir'))
        super().__init__(**{'backend_args': {'backend': BACKEND} if local else None, **kwargs})

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        kept = []
        if self.max_keep_ckpts > 0:
            kept = [*(other for other in self.keep_ckpt_ids if other != step), step]
            # With the oldest, so that it is removed at the next start if this run does not come to it.
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        self.last_ckpt = self._path(step)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            self.filename_tmpl.format(step),
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_atomically(self.last_ckpt.encode(), Path(runner.work_dir) / 'last_checkpoint')
        if self.max_keep_ckpts > 0:
            for path in map(self._path, kept[: -self.max_keep_ckpts]):
                if is_main_process() and self.file_backend.isfile(path):
                    self.file_backend.remove(path)
            self.keep_ckpt_ids.clear()
            self.keep_ckpt_ids.extend(kept[-self.max_keep_ckpts :])
            runner.message_hub.update_info('keep_ckpt_ids', [*self.keep_ckpt_ids])

    def _path(self, step: int) -> str:
        path: str = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
        return path


@HOOKS.register_module()
class LoadFromHook(Hook):
    """Says what a model takes from a checkpoint, and insists on all of it where that is meant.

    MMEngine loads whatever fits, and its message about the rest is easily missed: a test of another model's
    checkpoint scores random weights.

    - **Training from** ``load_from``: tensors of the same name and shape are taken, as from Mask R-CNN on COCO for
      other classes. The log tells how many of each module and lists every tensor that was not, with the
      reason; ``load_from.csv`` beside the log has them all. From a checkpoint of one detector, both layers of a
      ``TwoLayerEnsemble`` take theirs.
    - **Resuming and testing**: every tensor of the model must be in the checkpoint, in its shape. To resume, the
      checkpoint must also have the state of optimisers and schedulers, of those that this run has.
    - Values that are taken must be finite.

    Raises:
        ConfigError: A checkpoint that must fit does not, nothing at all fits, or the file is no checkpoint.
    """

    # Before hooks that copy the weights, such as MMEngine's EMAHook.
    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Puts what the model takes into the place of the checkpoint's weights."""
        where = str(runner._load_from or runner.work_dir)
        weights = weights_of(checkpoint, where=where)
        meta = meta_of(checkpoint, where=where)
        if runner._resume and 'epoch' not in meta:
            what = 'the checkpoint has weights and no state of a training to resume'
            raise ConfigError(what, where=where, fix=FROM_WEIGHTS)
        parts = LAYERS if isinstance(unwrapped(runner.model), TwoLayerEnsemble) else ()
        own = get_state_dict(runner.model)
        fits = fit_tensors(own, weights, parts=parts)
        if runner._resume or not trained_parts(runner):
            require_all(fits, where=where)
            if runner._resume:
                require_resumable(checkpoint, runner, where=where)
        elif not any(fit.status is TensorStatus.TAKEN for fit in fits):
            names = f'the checkpoint has {_some(weights)}, the model {_some(own)}'
            raise ConfigError(f'no tensor of the checkpoint fits the model: {names}', where=where)
        else:
            table = Path(runner.log_dir) / TABLE
            if is_main_process():
                write_atomically(as_csv(fits).encode(), table)
            runner.logger.info(f'load_from {runner._load_from}: {fit_summary(fits, parts=parts)}\nall of them: {table}')
        # Some models have infinite values of their own, such as masks of attention.
        taken = {fit.name: weights[fit.source] for fit in fits if fit.status is TensorStatus.TAKEN}
        taken = {name: value for name, value in taken.items() if own[name].isfinite().all()}
        averaged = checkpoint.get('ema_state_dict')
        if runner._resume and isinstance(averaged, dict):
            taken |= {f'averaged {name}': value for name, value in averaged.items()}
        require_finite(taken, where=where)
        checkpoint['state_dict'] = fitted(own, weights, fits)


def _some(names: Any) -> str:
    return ', '.join([*names][:SHOWN]) + ', …'
