"""Writes pictures of a data set, as training sees it or as it lies in a store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs
from mmdet.visualization import DetLocalVisualizer
from mmengine.dataset import BaseDataset
from tqdm import tqdm

from hierseg.datasets import StoreDataset
from hierseg.errors import ConfigError
from hierseg.registry import DATASETS


def store_dataset(store: str | Path, images: str | Path) -> StoreDataset:
    """The data set of a whole store, nothing filtered or transformed.

    Args:
        store: Folder of the store.
        images: Folder of the images.
    """
    pipeline = [
        LoadImageFromFile(color_type='color_ignore_orientation'),  # as stores count pixels
        LoadAnnotations(with_mask=True),
        PackDetInputs(meta_keys=('img_id', 'img_path', 'ori_shape', 'verified_positive', 'verified_negative')),
    ]
    return StoreDataset(store, data_prefix=dict(img=str(images)), pipeline=pipeline, test_mode=True)


def configured_dataset(config: Mapping[str, Any], split: str) -> Any:
    """The data set that a config names for a split, with its pipeline.

    Args:
        config: An MMDetection config.
        split: ``train``, ``val`` or ``test``.

    Raises:
        ConfigError: If the config has no such data loader, or one for each layer.
    """
    loader = config.get(f'{split}_dataloader')
    if not loader:
        raise ConfigError(f'the config has no {split}_dataloader', fix='Name another split with --split.')
    if 'dataset' not in loader:
        raise ConfigError(
            f'{split}_dataloader has a data set for each layer',
            fix='Name the config of a layer alone, such as configs/two_layer/layer1.py.',
        )
    return DATASETS.build(loader['dataset'])


def browse_dataset(
    dataset: BaseDataset,
    visualizer: DetLocalVisualizer,
    *,
    output_dir: Path | None,
    show: bool = False,
    show_interval: float = 2.0,
    max_images: int | None = None,
    progress: bool = True,
) -> list[Path]:
    """Draws the ground truth of samples after the pipeline.

    Args:
        dataset: Its pipeline must end in ``PackDetInputs``.
        visualizer: Its ``dataset_meta`` is set from the data set.
        output_dir: Where pictures are written, under the names of their images; None to write none.
        show: Whether to open a window for each.
        show_interval: Seconds that a window stays.
        max_images: As many images, evenly spaced over the data set; None for all.
        progress: Whether to show a progress bar.

    Returns:
        The pictures written.

    Raises:
        ConfigError: If the pipeline loads no annotations.
    """
    visualizer.dataset_meta = dataset.metainfo
    count = len(dataset) if max_images is None else min(max_images, len(dataset))
    indices = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int))
    written = []
    for index in tqdm(indices.tolist(), disable=not progress, unit='image'):
        packed = dataset[index]
        sample = packed['data_samples']
        if 'bboxes' not in sample.gt_instances:
            raise ConfigError(
                'the pipeline loads no annotations, so there is nothing to draw',
                where=type(dataset).__name__,
                fix="Add dict(type='LoadAnnotations', with_bbox=True, with_mask=True), or name another --split.",
            )
        path = None if output_dir is None else output_dir / Path(sample.img_path).name
        visualizer.add_datasample(
            Path(sample.img_path).name,
            packed['inputs'].permute(1, 2, 0).numpy()[..., ::-1],  # OpenCV's BGR to RGB
            sample,
            draw_pred=False,
            show=show,
            wait_time=show_interval,
            out_file=None if path is None else str(path),
        )
        if path is not None:
            written.append(path)
    return written
