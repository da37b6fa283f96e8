"""Detections of a model as COCO results, the JSON list that COCO's tools and other detectors use.

Shape letters: R detections, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger

from hierseg.evaluation.metrics import StoreMetric
from hierseg.evaluation.predictions import RankedFile, Span, prediction_of
from hierseg.evaluation.result_keys import category_numbers
from hierseg.formats.json_files import is_whole
from hierseg.metrics.records import ImagePrediction
from hierseg.registry import METRICS
from hierseg.store import ImageRow


@METRICS.register_module()
class CocoResults(StoreMetric):
    """Writes detections as COCO results; it computes nothing. ``tools/test.py --coco-results`` adds it.

    An entry has ``image_id``, the store's, as a number where it is one; ``category_id`` and ``score`` of the class that
    the detection names; ``bbox``, xywh in pixels; ``segmentation`` where the model predicts masks, compressed run
    lengths; and ``class_scores``, the scores above 0 of all classes by category id. Category ids are those of the COCO
    file that the store came from, or that ``write_coco`` makes of it; a class that is no category of that file stands
    by its class id. Detections with an empty mask are left out.

    Args:
        store: Folder of the store.
        out_file: The JSON to write.
        **options: As of :class:`StoreMetric`, and its errors.
    """

    default_prefix = 'coco_results'

    def __init__(self, store: str, *, out_file: str, **options: Any) -> None:
        super().__init__(store, **options)
        numbers = category_numbers(self.store)
        self._categories = [numbers.get(label, name) for label, name in enumerate(self.taxonomy.ids)]
        self._file = RankedFile(out_file)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Writes a batch to the part file of this rank."""
        for row, instances in self.rows_of(data_samples):
            image = self.store.image(row)
            prediction = prediction_of(
                instances, image, num_classes=self.taxonomy.num_classes, by_mask='masks' in instances
            )
            boxes = np.asarray(torch.as_tensor(instances['bboxes']).cpu(), dtype=np.float64).tolist()
            entries = result_entries(image, prediction, self._categories, boxes=boxes)
            lines = ',\n'.join(json.dumps(entry, ensure_ascii=False, allow_nan=False) for entry in entries)
            self.results.append((image.id, self._file.write(lines)))

    def evaluate(self, size: int) -> dict[str, float]:
        """Gathers the parts of all ranks."""
        self._file.close()
        try:
            return super().evaluate(size)
        finally:
            self._file.remove_part()

    def compute_metrics(self, results: list[tuple[str, Span]]) -> dict[str, float]:
        """Writes the file; on the main rank only."""
        self._file.join((span for _, span in results), begin='[\n', between=',\n', end='\n]\n')
        MMLogger.get_current_instance().info('COCO results written to %s', self._file.path)
        return {}


def result_entries(
    image: ImageRow, prediction: ImagePrediction, categories: Sequence[int | str], *, boxes: Sequence[Sequence[float]]
) -> list[dict[str, Any]]:
    """Entries of the detections of one image.

    Args:
        image: The image.
        prediction: Its R detections.
        categories: Category id of each of the C classes.
        boxes: (R, 4) xyxy in pixels.

    Scores are written so that reading gives the same numbers.
    """
    entries = []
    for region, (x1, y1, x2, y2) in enumerate(boxes):
        if prediction.mask_areas is not None and not prediction.mask_areas[region]:
            continue
        scores = prediction.class_scores[region]
        named = int(prediction.named_labels[region])
        entry: dict[str, Any] = {
            'image_id': int(image.id) if is_whole(image.id) else image.id,
            'category_id': categories[named],
            'score': float(scores[named]),
            'bbox': [x1, y1, x2 - x1, y2 - y1],
        }
        if prediction.mask_areas is not None:
            counts = prediction.masks[region].decode('ascii')
            entry['segmentation'] = {'size': [image.height, image.width], 'counts': counts}
        claimed = np.flatnonzero(scores > 0).tolist()
        entry['class_scores'] = {str(categories[label]): float(scores[label]) for label in claimed}
        entries.append(entry)
    return entries
