"""The visualizer that MMEngine's hooks and tools call, and pictures of whole data sets by it.

Ground truth stands beside the prediction, each instance with its class path.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmdet.visualization import DetLocalVisualizer
from mmengine.dataset import BaseDataset
from mmengine.dist import master_only
from mmengine.structures import InstanceData
from tqdm import tqdm

from hierseg.datasets import StoreDataset
from hierseg.drawing import (
    GROUP,
    DrawnInstance,
    Picture,
    TitledPicture,
    class_colors,
    label_variants,
    panel_of,
    path_steps,
    side_by_side,
)
from hierseg.errors import ConfigError
from hierseg.pictures import read_picture, write_picture
from hierseg.registry import DATASETS, VISUALIZERS
from hierseg.taxonomy import Taxonomy

BOX_ONLY = '(box only)'


@VISUALIZERS.register_module()
class HierLocalVisualizer(DetLocalVisualizer):
    """Draws instances with their class paths, such as ``Animal 0.98 › Dog 0.71``.

    Ground truth stands left of the prediction. The hue of a class is that of its root class. Group-of boxes are
    dashed, boxes without a mask are marked, and verified labels are listed below. It serves mmdet's
    ``DetVisualizationHook``, so that ``tools/test.py --show-dir`` writes these pictures.

    The classes come from ``dataset_meta``: ``taxonomy`` (``Taxonomy.to_json()``, as ``StoreDataset`` gives it), or
    ``classes`` alone for a data set without a hierarchy.

    Arguments are those of ``DetLocalVisualizer``; its colours, line width and alpha have no effect here.
    """

    _taxonomy: Taxonomy | None = None
    _described_by: Any = None

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes of ``dataset_meta``.

        Raises:
            ConfigError: If it names none.
        """
        description = self.dataset_meta.get('taxonomy') or self.dataset_meta.get('classes')
        if not description:
            raise ConfigError(
                'dataset_meta has neither taxonomy nor classes',
                where='HierLocalVisualizer',
                fix='Set visualizer.dataset_meta = dataset.metainfo.',
            )
        if self._taxonomy is None or self._described_by != description:
            if isinstance(description, dict):
                self._taxonomy = Taxonomy.from_json(description, where='dataset_meta')
            else:
                ids = [str(label) for label in range(len(description))]
                self._taxonomy = Taxonomy.from_edges(ids, [], names=description)
            self._described_by = description
        return self._taxonomy

    @master_only
    def add_datasample(
        self,
        name: str,
        image: Picture,
        data_sample: DetDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        pred_score_thr: float = 0.3,
        step: int = 0,
    ) -> None:
        """Draws a sample, then shows it, writes it to ``out_file`` or hands it to the backends.

        Arguments are those of ``DetLocalVisualizer.add_datasample``: an (H, W, 3) RGB image, and in its pixels the
        sample's ``gt_instances``, ``ignored_instances`` and ``pred_instances``, each optional. A window closes after
        ``wait_time`` seconds; 0 waits for a key.
        """
        picture = image.clip(0, 255).astype(np.uint8)
        panels = []
        if data_sample is not None:
            sample = data_sample.cpu()
            picture = _as_the_pipeline_read_it(picture, sample)
            # A pipeline without annotations packs instances without boxes.
            if draw_gt and 'gt_instances' in sample and 'bboxes' in sample.gt_instances:
                panels.append(self._ground_truth(picture, sample))
            if draw_pred and 'pred_instances' in sample:
                found = sample.pred_instances[sample.pred_instances.scores >= pred_score_thr]
                note = f' with score ≥ {pred_score_thr:g}'
                panels.append(panel_of(picture, self._drawn(found), 'Prediction', note=note))
        drawn = side_by_side(panels) if panels else picture
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            write_picture(drawn, out_file)
        else:
            self.add_image(name, drawn, step)

    def _ground_truth(self, image: Picture, sample: DetDataSample) -> TitledPicture:
        instances = self._drawn(sample.gt_instances)
        if 'ignored_instances' in sample:
            instances += self._drawn(sample.ignored_instances, mark=GROUP)
        remarks = []
        for key, title in (('verified_positive', 'Verified present'), ('verified_negative', 'Verified absent')):
            names = [self.taxonomy.names[label] for label in sample.get(key, ())]
            remarks += [f'{title}: {", ".join(names)}'] if names else []
        return panel_of(image, instances, 'Ground truth', remarks=tuple(remarks))

    def _drawn(self, instances: InstanceData, *, mark: str = '') -> list[DrawnInstance]:
        """Texts and colours for annotated or detected instances."""
        if len(instances) == 0:
            return []
        boxes, labels = _array(instances.bboxes), _array(instances.labels).tolist()
        nothing = [None] * len(labels)
        masks = _array(instances.masks).astype(np.uint8) if 'masks' in instances else nothing
        class_scores = _array(instances.class_scores) if 'class_scores' in instances else nothing
        scores = _array(instances.scores).tolist() if 'scores' in instances else nothing
        colors = class_colors(self.taxonomy)
        drawn = []
        for box, label, mask, claims, score in zip(boxes, labels, masks, class_scores, scores, strict=True):
            steps = path_steps(self.taxonomy, label, class_scores=claims, score=score)
            remark = mark or (BOX_ONLY if mask is not None and not mask.any() else '')
            drawn.append(DrawnInstance(box, colors[label], label_variants(steps, mark=remark), mask, bool(mark)))
        return drawn


def _as_the_pipeline_read_it(image: Picture, sample: DetDataSample) -> Picture:
    """The image itself, unless a hook read it turned as its EXIF says and the pipeline did not."""
    shape = image.shape[:2]
    original, transformed = (tuple(sample.get(key, shape)) for key in ('ori_shape', 'img_shape'))
    if shape in (original, transformed) or shape[::-1] != original:
        return image
    return read_picture(sample.img_path)


def _array(data: Any) -> npt.NDArray[Any]:
    """Boxes, masks or tensors of mmdet as an array."""
    if isinstance(data, (BitmapMasks, PolygonMasks)):
        return data.to_ndarray()
    data = getattr(data, 'tensor', data)  # mmdet's box types
    return data.numpy() if isinstance(data, torch.Tensor) else np.asarray(data)


def store_dataset(store: str | Path, images: str | Path) -> StoreDataset:
    """The data set of a whole store, by the folders of the store and of its images; nothing filtered or transformed."""
    pipeline = [
        LoadImageFromFile(color_type='color_ignore_orientation'),  # as stores count pixels
        LoadAnnotations(with_mask=True),
        PackDetInputs(meta_keys=('img_id', 'img_path', 'ori_shape', 'verified_positive', 'verified_negative')),
    ]
    return StoreDataset(store, data_prefix=dict(img=str(images)), pipeline=pipeline, test_mode=True)


def configured_dataset(config: Mapping[str, Any], split: str) -> Any:
    """Builds the data set that a config names for a split, ``train``, ``val`` or ``test``, with its pipeline.

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
