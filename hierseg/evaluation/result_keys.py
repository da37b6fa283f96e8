"""The meaning of the ids in COCO results, from the store or the COCO file of the same images.

Programs name images by the ids of the COCO file that they were given, or by the files' names (Ultralytics' YOLO, which
makes a number of a name of digits). Both are tried, and that counts which fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path, PureWindowsPath

from hierseg.converters.coco import categories_of
from hierseg.converters.coco_reading import checked_categories, match_categories, parse
from hierseg.formats.json_files import is_number, key_of, numbers_of
from hierseg.metrics.submissions import ResultKeys, category_keys, image_keys
from hierseg.store import Store
from hierseg.taxonomy import Taxonomy


def keys_of_store(store: Store) -> ResultKeys:
    """Category ids as ``write_coco`` writes them; image ids of the store, or as it writes them, or names of files."""
    images = [store.image(row) for row in range(len(store))]
    ids = [image.id for image in images]
    names = (ids, [str(number) for number in numbers_of(ids)], [_stem(image.file_name) for image in images])
    return ResultKeys(
        categories=category_keys(store.taxonomy, category_numbers(store)),
        images=[image_keys(some, ids) for some in names],
        sizes={image.id: (image.height, image.width) for image in images},
    )


def category_numbers(store: Store) -> Mapping[int, int | str]:
    """Label → category id, of the COCO file that the store came from or that ``write_coco`` makes of it."""
    categories, labels = categories_of(store)
    return {label: category['id'] for label, category in zip(labels, categories, strict=True)}


def keys_of_file(path: str | PathLike[str], taxonomy: Taxonomy) -> ResultKeys:
    """Those of a COCO file: its categories match classes as in conversion, its images by id or by name of file.

    Raises:
        AnnotationError: If the file cannot be read, or a category matches no class.
    """
    document = parse(Path(path))
    labels = match_categories(checked_categories(document['categories'], where=str(path)), taxonomy, where=str(path))
    entries = [entry for entry in document['images'] if isinstance(entry, dict) and key_of(entry.get('id')) is not None]
    numbers = [str(key_of(entry['id'])) for entry in entries]
    ids = [key_of(entry.get('source_id')) or number for entry, number in zip(entries, numbers, strict=True)]
    stems = [_stem(key_of(entry.get('file_name')) or number) for entry, number in zip(entries, numbers, strict=True)]
    sized = [
        ((entry['height'], entry['width']), names)
        for entry, *names in zip(entries, ids, stems, strict=True)
        if all(is_number(entry.get(side)) and entry[side] > 0 for side in ('height', 'width'))
    ]
    return ResultKeys(
        categories={**taxonomy.label_of, **labels},
        images=[image_keys(names, images) for images in (ids, stems) for names in (ids, numbers, stems)],
        sizes={name: size for size, names in sized for name in names},
    )


def _stem(file_name: str) -> str:
    return PureWindowsPath(file_name).stem  # takes both kinds of slashes
