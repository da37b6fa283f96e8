"""What the store keeps of one image, and the columns that it is kept in.

Shape letters: I instances of one image. A mask is the ``counts`` bytes of a COCO *compressed* run-length
encoding of size (height, width) of its image; pycocotools reads
``{'size': [height, width], 'counts': mask}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

FORMAT = 'hierseg-store'
VERSION = 1

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

IMAGES_SCHEMA = pa.schema(
    [
        ('id', pa.string()),
        ('file_name', pa.string()),
        ('width', pa.int32()),
        ('height', pa.int32()),
        ('first_instance', pa.int64()),
        ('last_instance', pa.int64()),
        ('first_verified', pa.int64()),
        ('last_verified', pa.int64()),
    ]
)
INSTANCES_SCHEMA = pa.schema(
    [
        ('label', pa.int32()),
        ('x1', pa.float64()),
        ('y1', pa.float64()),
        ('x2', pa.float64()),
        ('y2', pa.float64()),
        ('mask', pa.large_binary()),
        ('has_mask', pa.bool_()),
        ('group_of', pa.bool_()),
        ('area', pa.float64()),
        ('annotation_id', pa.string()),
    ]
)
VERIFIED_SCHEMA = pa.schema([('label', pa.int32()), ('positive', pa.bool_())])
SCHEMAS = {'images': IMAGES_SCHEMA, 'instances': INSTANCES_SCHEMA, 'verified': VERIFIED_SCHEMA}


@dataclass(frozen=True)
class ImageRow:
    """One image.

    Attributes:
        id: Unique within the store.
        file_name: Relative to the image folder.
        width: Pixels, as the file's header says (no EXIF rotation).
        height: Pixels, likewise.
    """

    id: str
    file_name: str
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class Instances:
    """The annotated instances of one image, labels as released (not expanded to ancestors).

    Attributes:
        labels: (I,) int64; index in the taxonomy.
        boxes: (I, 4) float64; xyxy, pixels.
        masks: I times RLE counts; ``b''`` where there is no mask.
        has_mask: (I,) bool.
        group_of: (I,) bool; one box around several objects (``iscrowd`` in COCO).
        areas: (I,) float64; pixels of the mask, of the box where there is no mask.
        annotation_ids: I times the BoxID or COCO annotation id; ``''`` where unknown.
    """

    labels: IntArray
    boxes: FloatArray
    masks: Sequence[bytes]
    has_mask: BoolArray
    group_of: BoolArray
    areas: FloatArray
    annotation_ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def empty(cls) -> Instances:
        """No instances: an image that carries verified labels only."""
        none = np.zeros(0, dtype=bool)
        return cls(np.zeros(0, dtype=np.int64), np.zeros((0, 4)), [], none, none, np.zeros(0), [])
