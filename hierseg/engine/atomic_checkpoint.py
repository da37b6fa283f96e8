"""Checkpoints that are whole or not there, whenever a run is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.fileio.backends import register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from hierseg.files import write_atomically
from hierseg.registry import HOOKS

BACKEND = 'hierseg.atomic'


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local files, written atomically."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes a file whole or not at all."""
        write_atomically(obj, Path(filepath))


register_backend(BACKEND, AtomicLocalBackend)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, of which a kill leaves a checkpoint to resume from at every moment.

    MMEngine removes the oldest checkpoint, then writes the new one and then its name into ``last_checkpoint``:
    a run that is killed meanwhile can be left with half a file, an empty name, or nothing. Here the new one is
    written atomically first, then its name, and then the oldest is removed.

    Args:
        **kwargs: As for ``CheckpointHook``. A remote ``out_dir`` is written as MMEngine does.
    """

    def __init__(self, **kwargs: Any) -> None:
        local = '://' not in str(kwargs.get('out_dir'))
        super().__init__(**{'backend_args': {'backend': BACKEND} if local else None, **kwargs})

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        kept = [*self.keep_ckpt_ids] if self.max_keep_ckpts > 0 else []
        if self.max_keep_ckpts > 0:
            kept = [*(other for other in kept if other != step), step]
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
            self._remove(kept[: -self.max_keep_ckpts])
            self.keep_ckpt_ids.clear()
            self.keep_ckpt_ids.extend(kept[-self.max_keep_ckpts :])
            runner.message_hub.update_info('keep_ckpt_ids', [*self.keep_ckpt_ids])

    def _path(self, step: int) -> str:
        path: str = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
        return path

    def _remove(self, steps: list[int]) -> None:
        for path in map(self._path, steps):
            if is_main_process() and self.file_backend.isfile(path):
                self.file_backend.remove(path)
