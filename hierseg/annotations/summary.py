"""What a conversion read, and what it left out and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from hierseg.annotations.records import Instances, IntArray

EXAMPLES = 5


@dataclass
class Skipped:
    """Things left out for one reason: how many, and the first few by name."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class ConversionSummary:
    """Counts of one conversion, printed at its end and kept in ``store.json``.

    Attributes:
        images: Images written.
        box_rows: Rows of the box table (annotations in COCO).
        mask_rows: Rows of the mask table (annotations with a segmentation in COCO).
        masks_joined: Mask rows that found their box row.
        masks_without_box: Mask rows that became instances of their own.
        instances: Instances written.
        instances_with_mask: Those of them with a mask.
        instances_group_of: Those of them that are group-of boxes.
        masks_resized: Masks of another size than their image, resized.
        verified_positive: Image-level labels verified as present.
        verified_negative: Image-level labels verified as absent.
        skipped: Reason → what was left out for it.
    """

    images: int = 0
    box_rows: int = 0
    mask_rows: int = 0
    masks_joined: int = 0
    masks_without_box: int = 0
    instances: int = 0
    instances_with_mask: int = 0
    instances_group_of: int = 0
    masks_resized: int = 0
    verified_positive: int = 0
    verified_negative: int = 0
    skipped: dict[str, Skipped] = field(default_factory=dict)

    def skip(self, reason: str, examples: Iterable[str], *, count: int = 1) -> None:
        """Counts things left out for a reason; the first few examples are kept, each once."""
        skipped = self.skipped.setdefault(reason, Skipped())
        skipped.count += count
        for example in examples:
            if len(skipped.examples) == EXAMPLES:
                break
            if example not in skipped.examples:
                skipped.examples.append(example)

    def add(self, other: ConversionSummary) -> None:
        """Adds the counts of a later part of the same conversion."""
        for counted in fields(self):
            if counted.name != 'skipped':
                setattr(self, counted.name, getattr(self, counted.name) + getattr(other, counted.name))
        for reason, skipped in other.skipped.items():
            self.skip(reason, skipped.examples, count=skipped.count)

    def count_image(self, instances: Instances, positive: IntArray, negative: IntArray) -> None:
        """Counts an image that is written, with its instances and verified labels."""
        self.images += 1
        self.instances += len(instances)
        self.instances_with_mask += int(instances.has_mask.sum())
        self.instances_group_of += int(instances.group_of.sum())
        self.verified_positive += len(np.unique(positive))
        self.verified_negative += len(np.unique(negative))

    def to_json(self) -> dict[str, Any]:
        """For ``store.json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ConversionSummary:
        """Reads what :meth:`to_json` gave."""
        skipped = {reason: Skipped(**found) for reason, found in document['skipped'].items()}
        return cls(**{**document, 'skipped': skipped})

    def __str__(self) -> str:
        rows = [
            ('images', self.images, ''),
            ('instances', self.instances, f'{self.instances_group_of:,} of them group-of'),
            ('  with mask', self.instances_with_mask, f'{self.masks_resized:,} resized to their image'),
            ('  box only', self.instances - self.instances_with_mask, ''),
            ('box rows', self.box_rows, ''),
            ('mask rows', self.mask_rows, f'{self.masks_joined:,} with a box row, {self.masks_without_box:,} without'),
            ('verified present', self.verified_positive, ''),
            ('verified absent', self.verified_negative, ''),
        ]
        lines = [f'{name:<17}{count:>12,}' + (f'  ({note})' if note else '') for name, count, note in rows]
        for reason, skipped in self.skipped.items():
            examples = ', '.join(skipped.examples) + (', …' if skipped.count > len(skipped.examples) else '')
            lines.append(f'skipped: {reason}: {skipped.count:,} ({examples})')
        return '\n'.join(lines)
