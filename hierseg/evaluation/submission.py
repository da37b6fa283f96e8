"""Writes detections as the official submission CSV, from several ranks into one file.

Each rank writes the rows of its images to a part file of its own and remembers where each image's rows are;
the main rank then copies those of the images that count. So the rows, gigabytes at full size, are never
gathered, and an image that the sampler gave to two ranks is written once.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hierseg.annotations import ImageRow
from hierseg.errors import EvaluationError
from hierseg.files import whole_file
from hierseg.metrics import BOX_SUBMISSION_COLUMNS, MASK_SUBMISSION_COLUMNS, ImageDetections, encode_mask


@dataclass(frozen=True)
class Span:
    """Where the rows of an image are: the rank whose part file has them, first byte and number of bytes."""

    rank: int
    start: int
    length: int


class SubmissionWriter:
    """Writes one submission file.

    Args:
        path: The file; its folder must be shared by all ranks.
        class_ids: Class id of every label.
        rank: Rank of this process.
    """

    def __init__(self, path: str | os.PathLike[str], *, class_ids: Sequence[str], rank: int) -> None:
        self.path, self.class_ids, self.rank = Path(path), class_ids, rank
        self._part: BinaryIO | None = None

    def add(self, image: ImageRow, detections: ImageDetections) -> Span:
        """Writes the rows of one image to the part file."""
        if self._part is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._part = self._part_of(self.rank).open('wb')
        rows = submission_rows(image, detections, self.class_ids).encode('utf-8')
        start = self._part.tell()
        self._part.write(rows)
        return Span(self.rank, start, len(rows))

    def close(self) -> None:
        """Ends the part file. Every rank does so before the main one merges."""
        if self._part is not None:
            self._part.close()
            self._part = None

    def merge(self, spans: Iterable[Span], *, by_mask: bool) -> None:
        """Writes the submission, whole or not at all.

        Args:
            spans: Rows of the images that count, in the order of the file.
            by_mask: Masks or boxes.

        Raises:
            EvaluationError: If the part file of another rank is not there.
        """
        parts: dict[int, BinaryIO] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with whole_file(self.path) as target:
                columns = MASK_SUBMISSION_COLUMNS if by_mask else BOX_SUBMISSION_COLUMNS
                target.write((','.join(columns) + '\n').encode('ascii'))
                for span in spans:
                    if span.rank not in parts:
                        parts[span.rank] = self._part_of(span.rank).open('rb')
                    parts[span.rank].seek(span.start)
                    target.write(parts[span.rank].read(span.length))
        except FileNotFoundError as error:
            raise EvaluationError(
                f'{error.filename} is missing',
                where=str(self.path),
                fix='Put submission_file into a folder that all ranks share.',
            ) from None
        finally:
            for part in parts.values():
                part.close()

    def remove_part(self) -> None:
        """Deletes this rank's part file."""
        self._part_of(self.rank).unlink(missing_ok=True)

    def _part_of(self, rank: int) -> Path:
        return self.path.with_name(f'.{self.path.name}.rank{rank}.part')


def submission_rows(image: ImageRow, detections: ImageDetections, class_ids: Sequence[str]) -> str:
    """Rows of the official CSV; detections with a blank mask, which the evaluation drops, are left out.

    Scores and coordinates are written so that reading gives the same numbers.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    claims = zip(
        detections.regions.tolist(), map(class_ids.__getitem__, detections.labels.tolist()), detections.scores.tolist(),
        strict=True,
    )  # fmt: skip
    if detections.mask_areas is None:
        boxes = detections.boxes.tolist()
        for region, class_id, score in claims:
            x1, y1, x2, y2 = boxes[region]
            writer.writerow([image.id, class_id, repr(score), repr(x1), repr(x2), repr(y1), repr(y2)])
    else:
        blank = (detections.mask_areas == 0).tolist()
        texts = [encode_mask(mask) for mask in detections.masks]
        for region, class_id, score in claims:
            if not blank[region]:
                writer.writerow([image.id, image.width, image.height, class_id, repr(score), texts[region]])
    return buffer.getvalue()
