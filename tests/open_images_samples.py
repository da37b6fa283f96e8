"""Small stores and predictions on them, for the tests of the metric."""

from __future__ import annotations

import numpy as np
import torch
from open_images_files import counts_of, rectangle
from taxonomies import teddy_taxonomy

from hierseg.store import ImageRow, Instances, StoreWriter


def instances(*entries, size=(8, 8)):
    """Entries are (label, rectangle, kind); kinds: 'mask', 'box', 'mask group', 'box group'."""
    masks = [rectangle(*place, size=size) for _, place, _ in entries]
    has_mask = np.array([kind.startswith('mask') for *_, kind in entries], dtype=bool)
    return Instances(
        labels=np.array([label for label, *_ in entries], dtype=np.int64),
        boxes=np.array([place for _, place, _ in entries], dtype=np.float64).reshape(-1, 4),
        masks=[counts_of(mask) if has else b'' for mask, has in zip(masks, has_mask, strict=True)],
        has_mask=has_mask,
        group_of=np.array([kind.endswith('group') for *_, kind in entries], dtype=bool),
        areas=np.array([mask.sum() for mask in masks], dtype=np.float64),
        annotation_ids=[''] * len(entries),
    )


def write_store(path, images, taxonomy=None):
    """Images are (id, instances, verified present, verified absent), all of 8 × 8 pixels."""
    with StoreWriter(path, taxonomy=taxonomy or teddy_taxonomy()) as writer:
        for image_id, entries, *verified in images:
            present, absent = (np.array(labels, dtype=np.int64) for labels in verified or ((), ()))
            writer.add(ImageRow(image_id, f'{image_id}.jpg', 8, 8), entries, present, absent)
    return str(path)


def sample(image_id, *claims, class_scores=True, size=(8, 8)):
    """A data sample; claims are (rectangle, {label: score}), the first label is the decided one."""
    scores = torch.zeros(len(claims), 5)
    for row, (_, paths) in enumerate(claims):
        for label, score in paths.items():
            scores[row, label] = score
    predicted = {
        'bboxes': torch.tensor([place for place, _ in claims], dtype=torch.float32).reshape(-1, 4),
        'labels': torch.tensor([next(iter(paths)) for _, paths in claims], dtype=torch.int64),
        'scores': torch.tensor([next(iter(paths.values())) for _, paths in claims]),
        'masks': torch.from_numpy(np.stack([np.zeros(size, bool), *(rectangle(*p, size=size) for p, _ in claims)])[1:]),
    }
    if class_scores:
        predicted['class_scores'] = scores
    return {'img_id': image_id, 'ori_shape': size, 'pred_instances': predicted}
