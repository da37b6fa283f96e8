"""A check before training: a head for another number of classes would learn without a sign, or fail deep inside."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from hierseg.engine.layerwise_loop import LayerwiseTrainLoop, unwrapped
from hierseg.errors import ConfigError
from hierseg.models import HierarchicalRoIHead
from hierseg.registry import HOOKS


@HOOKS.register_module()
class ClassCountHook(Hook):
    """Refuses to train where a head has another number of classes than its data set.

    It is MMDetection's ``NumClassCheckHook`` for all layers of a ``LayerwiseTrainLoop``, before the first is
    trained, and with a clear error.

    Raises:
        ConfigError: Numbers differ.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Compares every head with the data that it is trained on."""
        model, loop = unwrapped(runner.model), runner.train_loop
        if isinstance(loop, LayerwiseTrainLoop):
            parts = [(getattr(model, name), f'{name}.', loader) for name, loader in loop.dataloaders.items()]
        else:
            parts = [(model, '', loop.dataloader)]
        for part, prefix, loader in parts:
            classes = getattr(loader.dataset, 'metainfo', {}).get('classes')
            modules = dict(unwrapped(part).named_modules())
            # Looked at by the RoI head itself: it may have a mask for each root class.
            checked = {f'{name}.mask_head' for name in modules if isinstance(modules[name], HierarchicalRoIHead)}
            for name, module in modules.items():
                count = getattr(module, 'num_classes', None)
                # Proposals have one class.
                is_other = name.endswith('rpn_head') or name in checked
                if classes is None or count is None or is_other or count == len(classes):
                    continue
                raise ConfigError(
                    f'model.{prefix}{name} is for {count} classes, and its data set has {len(classes)}',
                    where='ClassCountHook',
                    fix=f'Set num_classes={len(classes)}.',
                )
