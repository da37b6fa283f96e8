"""The visualizer that MMEngine's hooks and tools call: class paths, ground truth beside prediction."""

from __future__ import annotations

from typing import Any

import mmcv
import numpy as np
import numpy.typing as npt
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmdet.visualization import DetLocalVisualizer
from mmengine.dist import master_only
from mmengine.structures import InstanceData

from hierseg.errors import ConfigError
from hierseg.registry import VISUALIZERS
from hierseg.report.drawing import (
    DrawnInstance,
    Panel,
    Picture,
    class_colors,
    draw_instances,
    label_variants,
    path_steps,
    side_by_side,
)
from hierseg.taxonomy import Taxonomy

GROUP, BOX_ONLY = '(group)', '(box only)'


@VISUALIZERS.register_module()
class HierLocalVisualizer(DetLocalVisualizer):
    """Draws instances with their class paths, such as ``Animal 0.98 › Dog 0.71``.

    Ground truth stands left of the prediction. The hue of a class is that of its root class. Group-of
    boxes are dashed, boxes without a mask are marked, and verified labels are listed below. Small pictures
    are enlarged so that text is legible. It serves mmdet's ``DetVisualizationHook``, so that
    ``tools/test.py --show-dir`` writes these pictures.

    The classes come from ``dataset_meta``: ``taxonomy`` (``Taxonomy.to_json()``, as ``StoreDataset`` gives
    it), or ``classes`` alone for a data set without a hierarchy.

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

        Args:
            name: Title of the window and key for the backends.
            image: (H, W, 3) RGB; boxes and masks of the sample are in its pixels.
            data_sample: With ``gt_instances``, ``ignored_instances`` and ``pred_instances``, each optional.
            draw_gt: Whether to draw the ground truth.
            draw_pred: Whether to draw the prediction.
            show: Whether to open a window.
            wait_time: Seconds until it closes; 0 waits for a key.
            out_file: Where to write the picture.
            pred_score_thr: Detections with a lower score are not drawn.
            step: For the backends.
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
                panels.append(self._prediction(picture, sample, pred_score_thr))
        drawn = side_by_side(panels) if panels else picture
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(drawn[..., ::-1], out_file)
        else:
            self.add_image(name, drawn, step)

    def _ground_truth(self, image: Picture, sample: DetDataSample) -> Panel:
        instances = self._drawn(sample.gt_instances)
        if 'ignored_instances' in sample:
            instances += self._drawn(sample.ignored_instances, mark=GROUP)
        picture, left_out = draw_instances(image, instances)
        return Panel(picture, 'Ground truth', _count(len(instances), left_out), self._verified(sample))

    def _prediction(self, image: Picture, sample: DetDataSample, threshold: float) -> Panel:
        found = sample.pred_instances
        instances = self._drawn(found[found.scores >= threshold])
        picture, left_out = draw_instances(image, instances)
        return Panel(picture, 'Prediction', f'{_count(len(instances), left_out)} with score ≥ {threshold:g}')

    def _verified(self, sample: DetDataSample) -> tuple[str, ...]:
        """A line for the classes verified as present and one for those verified as absent, where there are."""
        lines = []
        for key, title in (('verified_positive', 'Verified present'), ('verified_negative', 'Verified absent')):
            labels = sample.get(key, ())
            if len(labels):
                lines.append(f'{title}: ' + ', '.join(self.taxonomy.names[label] for label in labels))
        return tuple(lines)

    def _drawn(self, instances: InstanceData, *, mark: str = '') -> list[DrawnInstance]:
        """Texts and colours for annotated or detected instances."""
        if len(instances) == 0:
            return []
        boxes = _array(instances.bboxes)
        masks = _array(instances.masks).astype(np.uint8) if 'masks' in instances else None
        class_scores = _array(instances.class_scores) if 'class_scores' in instances else None
        scores = _array(instances.scores) if 'scores' in instances else None
        colors = class_colors(self.taxonomy)
        drawn = []
        for index, label in enumerate(_array(instances.labels).tolist()):
            steps = path_steps(
                self.taxonomy,
                label,
                class_scores=None if class_scores is None else class_scores[index],
                score=None if scores is None else float(scores[index]),
            )
            mask = None if masks is None else masks[index]
            remark = mark or (BOX_ONLY if mask is not None and not mask.any() else '')
            drawn.append(
                DrawnInstance(boxes[index], colors[label], label_variants(steps, mark=remark), mask, bool(mark))
            )
        return drawn


def _as_the_pipeline_read_it(image: Picture, sample: DetDataSample) -> Picture:
    """The image itself, unless a hook read it turned as its EXIF says and the pipeline did not."""
    shape = image.shape[:2]
    original, transformed = (tuple(sample.get(key, shape)) for key in ('ori_shape', 'img_shape'))
    if shape in (original, transformed) or shape[::-1] != original:
        return image
    return mmcv.imread(sample.img_path, flag='color_ignore_orientation', channel_order='rgb')


def _count(instances: int, left_out: int) -> str:
    text = f'{instances} instance{"" if instances == 1 else "s"}'
    return f'{text}, {left_out} of them without room for a label' if left_out else text


def _array(data: Any) -> npt.NDArray[Any]:
    """Boxes, masks or tensors of mmdet as an array."""
    if isinstance(data, (BitmapMasks, PolygonMasks)):
        return data.to_ndarray()
    data = getattr(data, 'tensor', data)  # mmdet's box types
    return data.numpy() if isinstance(data, torch.Tensor) else np.asarray(data)
