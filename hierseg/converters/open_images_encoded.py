"""The mask table of the evaluation, which holds the masks themselves, from the released one, which names PNG files."""

from __future__ import annotations

import csv
import io
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tqdm import tqdm

from hierseg.converters.open_images import masks_of
from hierseg.converters.open_images_masks import (
    IMAGE_SUFFIX,
    Folder,
    ImageTask,
    MaskZips,
    PackedMask,
    ZipIndex,
    most_bytes,
    read_mask,
)
from hierseg.converters.open_images_tables import TableReader, batches_of, read_piece, write_tables
from hierseg.converters.options import ConversionOptions, ConversionSummary, OpenImagesFiles
from hierseg.errors import AnnotationError
from hierseg.files import whole_file
from hierseg.formats import run_lengths
from hierseg.formats.csv_tables import place_of
from hierseg.limits import MAX_PIXELS
from hierseg.pictures import opened
from hierseg.taxonomy import Taxonomy

COLUMNS = ('ImageID', 'LabelName', 'ImageWidth', 'ImageHeight', 'XMin', 'YMin', 'XMax', 'YMax', 'IsGroupOf', 'Mask')
IMAGES_PER_BATCH = 8192
IMAGES_PER_PIECE = 64


def encode_masks(
    files: OpenImagesFiles,
    taxonomy: Taxonomy,
    out: str | PathLike[str],
    *,
    resize: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: bool = False,
) -> int:
    """Writes the mask table of the evaluation; gives back the number of its rows.

    Masks join their boxes as in conversion, and have the coordinates and the group-of flag of the box table, so that
    the evaluation's own join, which wants them equal to the digit, finds them; a mask without a box keeps its own.

    Args:
        files: The tables and the PNG files, in ``mask_dir`` or ``mask_zips``.
        taxonomy: The classes.
        out: The CSV to write.
        resize: Give masks the size of their image in ``files.images``; otherwise they keep that of their PNG.
        max_pixels: Of a mask or image; larger ones are refused.
        progress: Show bars on stderr.

    Raises:
        AnnotationError: On bad rows, and on a PNG or image that is not there or cannot be read, with file and line;
            on masks of several sizes on one image.
    """
    source, archives = masks_of(files)
    images = Folder.scan(files.images) if resize else None
    count, options = 0, ConversionOptions(max_pixels=max_pixels)
    with (
        TemporaryDirectory(prefix='hierseg-') as folder,
        whole_file(out) as binary,
        io.TextIOWrapper(binary, encoding='utf-8', newline='') as file,
    ):
        masks = source if source is not None else _zips(archives, Path(folder, 'zips.npy'))
        tables, reader = Path(folder, 'tables'), TableReader(taxonomy, options, ConversionSummary())
        num_images = write_tables(
            tables, reader, files.tables,
            images_per_batch=IMAGES_PER_BATCH, images_per_piece=IMAGES_PER_PIECE, progress=progress,
        )  # fmt: skip
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(COLUMNS)
        bar = tqdm(desc='encoding masks', total=num_images, unit='image', disable=None if progress else True)
        with bar:
            for first, last in batches_of(num_images, IMAGES_PER_BATCH):
                for piece in range(len(batches_of(last - first, IMAGES_PER_PIECE))):
                    for task in read_piece(tables, first, piece):
                        size = None if images is None else _image_size(images, task.image_id, max_pixels)
                        rows = [
                            _row(task, index, masks, size, taxonomy, Path(files.masks), max_pixels)
                            for index in np.flatnonzero(task.mask_rows >= 0).tolist()
                        ]
                        _check_sizes([row[2:4] for row in rows], task.image_id, Path(files.masks))
                        writer.writerows(rows)
                        count += len(rows)
                        bar.update()
    return count


def _zips(archives: list[Path], index: Path) -> MaskZips:
    np.save(index, ZipIndex.build(archives).members)
    return MaskZips(archives, index)


def _check_sizes(sizes: list[tuple[object, ...]], image_id: str, table: Path) -> None:
    other = next((size for size in sizes if size != sizes[0]), None)
    if other is not None:
        (width, height), (other_width, other_height) = sizes[0], other
        raise AnnotationError(
            f'the image has masks of {width} x {height} and of {other_width} x {other_height} pixels',
            where=f'{table}, image {image_id}',
            fix='Name the folder of the images (--images), so that masks get the size of theirs.',
        )


def _image_size(images: Folder, image_id: str, max_pixels: int) -> tuple[int, int]:
    name = image_id + IMAGE_SUFFIX
    path = Path(images.root, images.find(name, image_id) or name)
    with opened(path, max_pixels=max_pixels) as file:
        return file.height, file.width


def _row(
    task: ImageTask,
    index: int,
    masks: Folder | MaskZips,
    size: tuple[int, int] | None,
    taxonomy: Taxonomy,
    table: Path,
    max_pixels: int,
) -> tuple[object, ...]:
    path, read = masks.locate(task.references[index] or '', task.image_id)
    try:
        if read is None:
            raise AnnotationError('there is no such file')
        mask = read_mask(read(most_bytes(max_pixels)), path=path, max_pixels=max_pixels)
    except AnnotationError as error:
        where, what = f'{path} ({place_of(table, int(task.mask_rows[index]))})', error.what
        raise AnnotationError(f'the mask cannot be read ({what})', where=where, fix='Get the file again.') from None
    if size is not None and size != mask.shape:
        mask = PackedMask.of(run_lengths.resize_nearest(mask.pixels(), *size))
    height, width = mask.shape
    text = run_lengths.text_of_counts(run_lengths.compress_runs(mask.runs()))
    box = map(repr, task.boxes[index].tolist())
    return (task.image_id, taxonomy.ids[task.labels[index]], width, height, *box, int(task.group_of[index]), text)
