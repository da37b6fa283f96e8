"""How many masks a mask head draws, and which of them is an instance's.

Shape letters: C classes, R root classes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from hierseg.errors import ConfigError
from hierseg.taxonomy import Taxonomy

MaskChannels = Literal['shared', 'root', 'class']


def mask_channel_of_classes(mask_head: nn.Module, taxonomy: Taxonomy, mask_channels: MaskChannels) -> Tensor:
    """The channel of each class in an mmdet mask head.

    Args:
        mask_head: One whose channels mmdet chooses by label, such as ``FCNMaskHead``.
        taxonomy: The classes.
        mask_channels: ``shared``: one mask for all classes; ``root``: one for each root class, by the preferred
            parents of a class, in the order of their labels; ``class``: one for each class, internal ones too.

    Returns:
        (C,) int64.

    Raises:
        ConfigError: On another word, or a head with another number of channels.
    """
    arrays = taxonomy.arrays
    if mask_channels == 'shared':
        channels = np.zeros(taxonomy.num_classes, dtype=np.int64)
    elif mask_channels == 'root':
        channels = np.searchsorted(np.flatnonzero(arrays.preferred_parents < 0), arrays.preferred_roots)
    elif mask_channels == 'class':
        channels = np.arange(taxonomy.num_classes)
    else:
        raise ConfigError(
            f'mask_channels={mask_channels!r}', where='HierarchicalRoIHead', fix='Use shared, root or class.'
        )
    shared = mask_channels == 'shared'
    count = taxonomy.num_classes if shared else int(channels.max()) + 1
    if mask_head.class_agnostic != shared or mask_head.num_classes != count:
        raise ConfigError(
            f'mask_channels={mask_channels!r} and a mask head with class_agnostic={mask_head.class_agnostic}, '
            f'num_classes={mask_head.num_classes}',
            where='HierarchicalRoIHead',
            fix=f'Give it class_agnostic={shared}, num_classes={count}.',
        )
    return torch.from_numpy(channels)
