"""What a conversion of Open Images is told: its files, what to do about imperfect input, which share is its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from hierseg.annotations.openimages_images import Trouble
from hierseg.annotations.openimages_join import BOX_TOLERANCE
from hierseg.errors import AnnotationError


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
    """What to do about imperfect input.

    Attributes:
        skip_unknown_classes: Leave out rows of classes that the taxonomy does not have.
        skip_bad_rows: Leave out rows that make no sense, such as a box outside its image.
        skip_broken: Leave out images without a readable file, and unreadable masks (their boxes stay).
        strict: A mask PNG that is named but not there is an error; otherwise its box stays, without a mask.
        box_tolerance: Largest difference, as a fraction of the image, of coordinates of one box in two files.
    """

    skip_unknown_classes: bool = False
    skip_bad_rows: bool = False
    skip_broken: bool = False
    strict: bool = False
    box_tolerance: float = BOX_TOLERANCE

    def tolerates(self, trouble: Trouble) -> bool:
        """Whether it goes into the summary instead of ending the conversion."""
        if trouble is Trouble.MASK_EMPTY:
            return True
        return not self.strict if trouble is Trouble.MASK_MISSING else self.skip_broken


@dataclass(frozen=True)
class ShardNumber:
    """One of several equal shares of the images, in the order of their ids.

    Attributes:
        index: From 0.
        count: How many shares there are.

    Raises:
        AnnotationError: If there is no such share.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise AnnotationError(
                f'there is no shard {self.index} of {self.count}', fix=f'They are numbered 0 to {self.count - 1}.'
            )

    def span(self, num_images: int) -> tuple[int, int]:
        """The first image of the share, and the first behind it.

        Example:
            >>> [ShardNumber(index, 3).span(10) for index in range(3)]
            [(0, 3), (3, 6), (6, 10)]
        """
        return self.index * num_images // self.count, (self.index + 1) * num_images // self.count

    def batches(self, num_images: int, images_per_batch: int) -> list[tuple[int, int]]:
        """The share cut into batches: first image of each, and the first behind it."""
        first, last = self.span(num_images)
        return [(start, min(start + images_per_batch, last)) for start in range(first, last, images_per_batch)]
