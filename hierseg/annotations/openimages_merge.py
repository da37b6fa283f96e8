"""From finished batches to a store: of one conversion, or of all shards of one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hierseg.annotations.openimages_options import ShardNumber
from hierseg.annotations.openimages_shard import FORMAT, SHARD_FILE, VERSION, differences, part_path
from hierseg.annotations.store_parts import read_part
from hierseg.annotations.store_writer import StoreWriter
from hierseg.annotations.summary import ConversionSummary
from hierseg.errors import AnnotationError, StoreError
from hierseg.taxonomy import Taxonomy

# Of one conversion these differ from shard to shard: machines have folders of their own.
OF_ONE_SHARD = ('shard', 'folders')


def merge_shards(
    shards: Sequence[str | PathLike[str]], *, out: str | PathLike[str], overwrite: bool = False, progress: bool = False
) -> ConversionSummary:
    """Writes the store that one conversion would have written.

    Args:
        shards: Folders that ``convert_shard`` wrote, in any order.
        out: The store's folder; it appears when it is whole.
        overwrite: Replace a store that is there.
        progress: Show a bar on stderr.

    Raises:
        StoreError: If they are not all shards of one conversion, each once, or if one is damaged.
        AnnotationError: If none of the images could be read.
    """
    documents = [(path, _read(path)) for path in map(Path, shards)]
    if not documents:
        raise StoreError('there are no shards to merge', fix='Name the folders of all shards.')
    path, first = documents[0]
    for other, document in documents[1:]:
        found = differences(_shared(first), _shared(document))
        if found or document['shard'][1] != first['shard'][1]:
            raise StoreError(
                f'is of another conversion than {path}: other {", ".join(found) or "number of shards"}',
                where=str(other),
                fix='Merge shards of the same files, converted with the same options.',
            )
    count = first['shard'][1]
    folders = _in_order(documents, count)
    parts = [
        part_path(folders[index], *span)
        for index in range(count)
        for span in ShardNumber(index, count).batches(first['num_images'], first['images_per_batch'])
    ]
    summary = ConversionSummary.from_json(first['tables'])
    taxonomy = Taxonomy.from_json(first['taxonomy'], where=str(folders[0] / SHARD_FILE))
    return write_store(
        parts, taxonomy, summary, out=out, num_images=first['num_images'], overwrite=overwrite, progress=progress
    )


def _shared(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in OF_ONE_SHARD}


def _in_order(documents: Iterable[tuple[Path, dict[str, Any]]], count: int) -> list[Path]:
    """The folders by the number of their shard; each is there once."""
    folders: dict[int, Path] = {}
    for path, document in documents:
        index = document['shard'][0]
        if index in folders:
            what = f'is shard {index} of {count}, as is {folders[index]}'
            raise StoreError(what, where=str(path), fix='Give each shard once.')
        folders[index] = path
    missing = [str(index) for index in range(count) if index not in folders]
    if missing:
        raise StoreError(f'of {count} shards, these are not there: {", ".join(missing)}', fix='Name all shards.')
    return [folders[index] for index in range(count)]


def _read(folder: Path) -> dict[str, Any]:
    file = folder / SHARD_FILE
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding='utf-8'))
    except OSError:
        raise StoreError(
            f'no {SHARD_FILE} here, so this is no finished shard',
            where=str(folder),
            fix='Let tools/dataset_converters/openimages.py --shard come to its end.',
        ) from None
    except ValueError as error:
        raise StoreError(f'is not JSON ({error})', where=str(file), fix='Copy the shard again.') from None
    if (document.get('format'), document.get('version')) != (FORMAT, VERSION):
        raise StoreError(
            f'is not {FORMAT!r} version {VERSION}', where=str(file), fix='Convert with this version of hierseg.'
        )
    return document


def write_store(
    parts: Iterable[Path],
    taxonomy: Taxonomy,
    summary: ConversionSummary,
    *,
    out: str | PathLike[str],
    num_images: int,
    overwrite: bool,
    progress: bool,
) -> ConversionSummary:
    """Writes a store of finished batches, one in memory at a time.

    Args:
        parts: Their files, in the order of images.
        taxonomy: The classes.
        summary: What was counted in the tables; what was counted in batches is added.
        out: The store's folder.
        num_images: Images of all batches, for the bar.
        overwrite: Replace a store that is there.
        progress: Show a bar on stderr.

    Returns:
        The summary.

    Raises:
        StoreError: If a part is damaged, or ``out`` cannot be written.
        AnnotationError: If there are no images.
    """
    with (
        StoreWriter(out, taxonomy=taxonomy, overwrite=overwrite) as writer,
        tqdm(desc='writing the store', total=num_images, unit='image', disable=not progress) as bar,
    ):
        for path in parts:
            part, counts = read_part(path)
            writer.extend(part)
            summary.add(ConversionSummary.from_json(counts))
            bar.update(part.images.num_rows)
        if summary.images == 0:
            raise AnnotationError('none of the images can be read', fix='Check the folder.')
        writer.summary = summary.to_json()
    return summary
