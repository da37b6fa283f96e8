"""Files and options of a conversion, and the summary of what it read and left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from hierseg.formats import IntArray
from hierseg.limits import MAX_PIXELS
from hierseg.store.store import Instances

# As a fraction of the image: about one pixel of the released images. Rounding to three decimals stays
# below it; two boxes of one class in one image closer than that on all four sides are the same object.
BOX_TOLERANCE = 1e-3


@dataclass(frozen=True)
class OpenImagesFiles:
    """The official files of one split.

    Attributes:
        boxes: ``ImageID, LabelName, XMin, XMax, YMin, YMax, IsGroupOf``.
        labels: ``ImageID, LabelName, Confidence``.
        masks: ``MaskPath, ImageID, LabelName, BoxXMin, …`` or ``ImageID, LabelName, …, Mask``.
        images: Folder of ``<ImageID>.jpg``.
        mask_dir: Folder of the PNG files that ``masks`` names; None if it holds encoded masks or they are in archives.
        mask_zips: Archives of these PNG files, or folders of archives.
    """

    boxes: str | PathLike[str]
    labels: str | PathLike[str]
    masks: str | PathLike[str]
    images: str | PathLike[str]
    mask_dir: str | PathLike[str] | None = None
    mask_zips: Sequence[str | PathLike[str]] = ()

    @property
    def tables(self) -> dict[str, Path]:
        """The CSV files by what they hold."""
        return {'masks': Path(self.masks), 'boxes': Path(self.boxes), 'labels': Path(self.labels)}


@dataclass(frozen=True)
class ConversionOptions:
    """Treatment of imperfect input.

    Attributes:
        skip_unknown_classes: Leave out rows of classes that the taxonomy does not have.
        skip_bad_rows: Leave out rows that make no sense, such as a box outside its image.
        skip_broken: Leave out images without a readable file, and unreadable masks (their boxes stay).
        strict: A mask PNG that is named but not there is an error; otherwise its box stays, without a mask.
        box_tolerance: Largest difference, as a fraction of the image, of coordinates of one box in two files.
        max_pixels: Of an image or mask; larger ones count as unreadable.
    """

    skip_unknown_classes: bool = False
    skip_bad_rows: bool = False
    skip_broken: bool = False
    strict: bool = False
    box_tolerance: float = BOX_TOLERANCE
    max_pixels: int = MAX_PIXELS


EXAMPLES = 5


@dataclass
class Skipped:
    """Things left out for one reason: how many, and the first few by name."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, examples: Iterable[str], count: int) -> None:
        """Counts more of them."""
        self.count += count
        for example in examples:
            if len(self.examples) == EXAMPLES:
                break
            if example not in self.examples:
                self.examples.append(example)


@dataclass
class ConversionSummary:
    """Counts of one conversion, printed at its end and kept in ``store.json``: of what is written but for these.

    Attributes:
        box_rows: Rows of the box table (annotations in COCO).
        mask_rows: Rows of the mask table (annotations with a segmentation in COCO).
        masks_joined: Mask rows that found their box row.
        masks_without_box: Mask rows that became instances of their own.
        skipped: Reason → what was left out for it.
        mended: Kind of fault, or of decision → what was put right or decided.
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
    mended: dict[str, Skipped] = field(default_factory=dict)

    def skip(self, reason: str, examples: Iterable[str], *, count: int = 1) -> None:
        """Counts things left out for a reason; the first few examples are kept, each once."""
        self.skipped.setdefault(reason, Skipped()).add(examples, count)

    def mend(self, kind: str, example: str) -> None:
        """Counts a thing that was put right; likewise."""
        self.mended.setdefault(kind, Skipped()).add([example], 1)

    def add(self, other: ConversionSummary) -> None:
        """Adds the counts of a later part of the same conversion."""
        for name, count in vars(other).items():
            if name not in ('skipped', 'mended'):
                setattr(self, name, getattr(self, name) + count)
        for mine, others in ((self.skipped, other.skipped), (self.mended, other.mended)):
            for reason, found in others.items():
                mine.setdefault(reason, Skipped()).add(found.examples, found.count)

    def count_image(self, instances: Instances, positive: IntArray, negative: IntArray) -> None:
        """Counts an image that is written, with its instances and its verified labels, each of them once."""
        self.images += 1
        self.instances += len(instances)
        self.instances_with_mask += int(instances.has_mask.sum())
        self.instances_group_of += int(instances.group_of.sum())
        self.verified_positive += len(positive)
        self.verified_negative += len(negative)

    def to_json(self) -> dict[str, Any]:
        """For ``store.json``; without ``mended`` where nothing was."""
        return {name: value for name, value in asdict(self).items() if value or name != 'mended'}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ConversionSummary:
        """Reads what :meth:`to_json` gave."""
        counted = {
            name: {reason: Skipped(**found) for reason, found in document.get(name, {}).items()}
            for name in ('skipped', 'mended')
        }
        return cls(**{**document, **counted})

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
        for verb, found in (('put right', self.mended), ('skipped', self.skipped)):
            for reason, counted in found.items():
                examples = ', '.join(counted.examples) + (', …' if counted.count > len(counted.examples) else '')
                lines.append(f'{verb}: {reason}: {counted.count:,} ({examples})')
        return '\n'.join(lines)
