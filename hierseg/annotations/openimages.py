"""From the official Open Images files to a store."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hierseg.annotations import openimages_batches
from hierseg.annotations.mask_zips import MaskZips, ZipIndex, find_zips
from hierseg.annotations.openimages_batches import PieceConverter, convert_batch, worker_pool
from hierseg.annotations.openimages_images import Folder, ImageConverter, MaskSource
from hierseg.annotations.openimages_merge import write_store
from hierseg.annotations.openimages_options import ConversionOptions, OpenImagesFiles, ShardNumber
from hierseg.annotations.openimages_partition import Partition, PartitionedTables, write_partition
from hierseg.annotations.openimages_shard import SHARD_FILE, WorkFolder, describe, part_path
from hierseg.annotations.openimages_tables import TableReader, masks_are_files
from hierseg.annotations.output_folder import check_target
from hierseg.annotations.store_parts import write_part
from hierseg.annotations.summary import ConversionSummary
from hierseg.errors import AnnotationError
from hierseg.files import whole_file
from hierseg.taxonomy import Taxonomy

__all__ = ['ConversionOptions', 'OpenImagesFiles', 'ShardNumber', 'convert_openimages', 'convert_shard']


def convert_openimages(
    files: OpenImagesFiles,
    taxonomy: Taxonomy,
    *,
    out: str | PathLike[str],
    options: ConversionOptions | None = None,
    overwrite: bool = False,
    workers: int = 1,
    progress: bool = False,
) -> ConversionSummary:
    """Writes a store of one split.

    Images are those of any of the three tables, in ascending order of their id. Masks join their boxes by
    image, class and nearly equal box (see ``join_masks``), and the box table's coordinates are kept; a
    mask without a box row becomes an instance with the box of its own row. Sizes come from the image
    headers (EXIF rotation is not applied; damage behind the header goes unseen). Labels are kept as
    released, not expanded. The store is the same whatever the number of workers.

    Finished batches of images wait in a hidden folder beside ``out``. A run that is killed is gone on with by the
    next one with the same input and options, and gives the same store.

    Args:
        files: The input.
        taxonomy: The classes.
        out: The store's folder; it appears when it is whole.
        options: What to do about imperfect input.
        overwrite: Replace a store that is there, and an unfinished conversion that was begun with something else.
        workers: Processes that read images and masks; 1 reads in this one.
        progress: Show bars on stderr.

    Raises:
        AnnotationError: On bad input, with file and line or image.
        StoreError: If ``out`` cannot be written, or an unfinished conversion was begun with something else.
    """
    out = Path(out)
    check_target(out, overwrite=overwrite)
    conversion = _Conversion(
        files,
        taxonomy,
        options=options or ConversionOptions(),
        shard=ShardNumber(),
        workers=workers,
        progress=progress,
    )
    with WorkFolder(out, conversion.begun, overwrite=overwrite) as work:
        num_images, summary = conversion.run(work)
        parts = [part_path(work.path, *span) for span in conversion.batches(num_images)]
        try:
            summary = write_store(
                parts, taxonomy, summary, out=out, num_images=num_images, overwrite=overwrite, progress=progress
            )
        except AnnotationError as error:
            # Nothing in the batches is worth going on with.
            work.discard()
            raise AnnotationError(error.what, where=str(files.images), fix=error.fix) from None
        work.discard()
    return summary


def convert_shard(
    files: OpenImagesFiles,
    taxonomy: Taxonomy,
    *,
    out: str | PathLike[str],
    shard: ShardNumber,
    options: ConversionOptions | None = None,
    overwrite: bool = False,
    workers: int = 1,
    progress: bool = False,
) -> None:
    """Converts one of several shares of the images, for ``merge_shards`` to make a store of all.

    Every share reads the tables as a whole, and images and masks of its own alone.

    Args:
        files: The input.
        taxonomy: The classes.
        out: The shard's folder; it appears when it is whole.
        shard: Which share.
        options: What to do about imperfect input.
        overwrite: Replace a shard that is there, and an unfinished conversion that was begun with something else.
        workers: Processes that read images and masks; 1 reads in this one.
        progress: Show bars on stderr.

    Raises:
        AnnotationError: On bad input, with file and line or image.
        StoreError: If ``out`` cannot be written, or an unfinished conversion was begun with something else.
    """
    out = Path(out)
    check_target(out, overwrite=overwrite, marker=SHARD_FILE)
    conversion = _Conversion(
        files,
        taxonomy,
        options=options or ConversionOptions(),
        shard=shard,
        workers=workers,
        progress=progress,
    )
    with WorkFolder(out, conversion.begun, overwrite=overwrite) as work:
        num_images, summary = conversion.run(work)
        work.finish(num_images, summary)


class _Conversion:
    """What converting a share of the images takes.

    Attributes:
        begun: All that it is told, see ``describe``.
    """

    def __init__(
        self,
        files: OpenImagesFiles,
        taxonomy: Taxonomy,
        *,
        options: ConversionOptions,
        shard: ShardNumber,
        workers: int,
        progress: bool,
    ) -> None:
        self.files, self.taxonomy, self.options, self.shard = files, taxonomy, options, shard
        self.workers, self.progress = workers, progress
        self.images = _folder(files.images)
        self.mask_folder, self.archives = _masks_of(files)
        self.zips: ZipIndex | None = None
        if self.archives:
            with worker_pool(min(workers, len(self.archives))) as pool:
                self.zips = ZipIndex.build(self.archives, pool)
        self.images_per_batch = openimages_batches.IMAGES_PER_BATCH
        self.begun = describe(
            files,
            taxonomy,
            options,
            shard=shard,
            images_per_batch=self.images_per_batch,
            zip_digests=self.zips.digests if self.zips else (),
        )

    def batches(self, num_images: int) -> list[tuple[int, int]]:
        """First image of each batch, and the first behind it."""
        return self.shard.batches(num_images, self.images_per_batch)

    def run(self, work: WorkFolder) -> tuple[int, ConversionSummary]:
        """Makes all batches that are not there.

        Returns:
            The number of images of all shares, and what was counted in the tables.
        """
        partition, summary = work.partition() or self._partition(work)
        batches = self.batches(partition.num_images)
        spans = {number: span for number, span in enumerate(batches) if not part_path(work.path, *span).exists()}
        total = sum(last - first for first, last in batches)
        left = sum(last - first for first, last in spans.values())
        convert = PieceConverter(
            PartitionedTables(
                work.tables,
                partition,
                self.files.tables,
                num_classes=self.taxonomy.num_classes,
                tolerance=self.options.box_tolerance,
            ),
            ImageConverter(self.images, self._masks(work)),
            self.options,
        )
        with (
            worker_pool(min(self.workers, -(-left // openimages_batches.IMAGES_PER_TASK)), convert) as pool,
            tqdm(total=total, initial=total - left, unit='image', disable=not self.progress, smoothing=0.05) as bar,
        ):
            for number, (first, last) in spans.items():
                part, counts = convert_batch(convert, pool, number, last - first, tell=bar.update)
                write_part(part, counts.to_json(), part_path(work.path, first, last))
        return partition.num_images, summary

    def _partition(self, work: WorkFolder) -> tuple[Partition, ConversionSummary]:
        work.tables.mkdir(exist_ok=True)
        reader = TableReader(
            self.taxonomy,
            ConversionSummary(),
            skip_unknown_classes=self.options.skip_unknown_classes,
            skip_bad_rows=self.options.skip_bad_rows,
        )
        partition = write_partition(
            work.tables,
            reader,
            self.files.tables,
            shard=self.shard,
            images_per_batch=self.images_per_batch,
            progress=self.progress,
        )
        work.keep_partition(partition, reader.summary)
        return partition, reader.summary

    def _masks(self, work: WorkFolder) -> MaskSource | None:
        if self.zips is None:
            return self.mask_folder
        index = work.path / 'zips.npy'
        with whole_file(index) as file:
            np.save(file, self.zips.members)
        self.zips = None
        return MaskZips(self.archives, index)


def _masks_of(files: OpenImagesFiles) -> tuple[Folder | None, list[Path]]:
    """The folder or the archives of mask PNGs; neither if masks are text."""
    if not masks_are_files(Path(files.masks)):
        return None, []
    if (files.mask_dir is None) == (not files.mask_zips):
        raise AnnotationError(
            'names PNG files, but no folder of masks is given'
            if files.mask_dir is None
            else 'is given both a folder and archives of masks',
            where=str(files.masks),
            fix='Give either --mask-dir or --mask-zips.',
        )
    return (_folder(files.mask_dir), []) if files.mask_dir is not None else (None, find_zips(files.mask_zips))


def _folder(path: str | PathLike[str]) -> Folder:
    if not Path(path).is_dir():
        raise AnnotationError('is no folder', where=str(path), fix='Give the folder that holds the files.')
    return Folder.scan(Path(path))
