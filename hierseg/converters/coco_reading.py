"""COCO files as people have them: what is unambiguous is put right and counted, the rest is refused by kind.

Of a fault of which only one meaning makes sense (a box that sticks out, an id that occurs twice) the converter takes
that meaning; ``strict`` refuses it. Of any other (a class that is no category) nothing can be taken; ``lenient`` leaves
the entry out. Faults are counted over the whole file, and the first of each kind is shown.

Sizes and orientation are those of the image files' headers, since JSON files often hold others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from typing import Any, Literal, NoReturn

from tqdm import tqdm

from hierseg.converters.options import ConversionSummary, Skipped
from hierseg.errors import AnnotationError
from hierseg.files import finite
from hierseg.formats.json_files import is_number, is_quadruple, key_of, read_json
from hierseg.formats.reading import leaves_folder, shown
from hierseg.limits import MAX_PIXELS
from hierseg.pictures import opened
from hierseg.store.store import ImageRow
from hierseg.taxonomy import Taxonomy
from hierseg.taxonomy.formats import coco_draft

NOTHING = (None, '', 'None', 'none', 'null')
ORIENTATION_TAG = 0x0112
# Of an image: those that the store's tables hold, or that follow from them.
OWN_KEYS = {
    'id', 'file_name', 'width', 'height', 'source_id',
    'pos_category_ids', 'neg_category_ids', 'not_exhaustive_category_ids',
}  # fmt: skip

Entry = Mapping[str, Any]
Mode = Literal['default', 'strict', 'lenient']
Orientation = Literal['stored', 'turned']


class Faults:
    """What is wrong with a file, by kind.

    Args:
        path: The file.
        mode: See the module.
        summary: Gets the counts.
    """

    def __init__(self, path: Path, mode: Mode, summary: ConversionSummary) -> None:
        self._path = path
        self._mode = mode
        self._summary = summary
        self._refused: dict[str, Skipped] = {}
        self._first: AnnotationError | None = None

    def mend(self, kind: str, place: str, what: str = '') -> None:
        """Counts a fault that was put right."""
        if self._mode == 'strict':
            self._refuse(kind, place, what or kind, 'Put it right, or leave out --strict.')
        else:
            self._summary.mend(kind, place)

    def refuse(self, kind: str, place: str, what: str, fix: str) -> None:
        """Counts a fault whose entry is left out, which only ``lenient`` allows."""
        if self._mode == 'lenient':
            self._summary.skip(kind, [place])
        else:
            self._refuse(kind, place, what, f'{fix} Or leave such things out with --lenient.')

    def _refuse(self, kind: str, place: str, what: str, fix: str) -> None:
        refused = self._refused.setdefault(kind, Skipped())
        refused.count += 1
        if refused.count == 1:
            refused.examples.append(f'{place}: {what}')
        self._first = self._first or AnnotationError(what, where=f'{self._path}, {place}', fix=fix)

    def note(self, kind: str, *places: str) -> None:
        """Counts what is no fault, but was decided."""
        for place in places:
            self._summary.mend(kind, place)

    def error(self, what: str, fix: str) -> AnnotationError:
        """An error that no mode allows."""
        return AnnotationError(what, where=str(self._path), fix=fix)

    def check(self) -> None:
        """Raises one AnnotationError for all that was refused, if anything was."""
        if self._first is None:
            return
        count = sum(refused.count for refused in self._refused.values())
        if count == 1:
            raise self._first
        lines = [
            f'{refused.count:,} {kind}; the first: {refused.examples[0]}' for kind, refused in self._refused.items()
        ]
        if len(lines) == 1:
            kinds, fix = 'one kind', self._first.fix
        elif self._mode == 'strict':
            kinds, fix = f'{len(lines)} kinds', 'Put them right, or leave out --strict.'
        else:
            kinds, fix = f'{len(lines)} kinds', 'Put them right, or leave such things out with --lenient.'
        what = '\n  '.join([f'has {count:,} faults of {kinds}:', *lines])
        raise AnnotationError(what, where=str(self._path), fix=fix)


@dataclass(frozen=True)
class CocoImage:
    """An image and what is annotated on it.

    Attributes:
        row: Id, file name, size; turned where the file's annotations are.
        positive: Labels listed as present; None if the image has no such list.
        negative: Labels listed as absent; likewise.
        not_exhaustive: Labels listed as not annotated exhaustively; likewise.
        annotations: Entries of the file, with ids of their own.
        others: What else the file says of the image: licence, date, address.
    """

    row: ImageRow
    positive: Sequence[int] | None
    negative: Sequence[int] | None
    not_exhaustive: Sequence[int] | None
    annotations: Sequence[tuple[str, Entry]]
    others: Entry


@dataclass(frozen=True)
class CocoDocument:
    """A COCO file.

    Attributes:
        path: Of the file.
        taxonomy: The one that the file holds, or that of ``supercategory``, or the one given.
        categories: Entries of the file.
        labels: Category id, as text → label in ``taxonomy``.
        orientation: Whether annotations lie on the pixels as stored in the image files, or turned as EXIF says.
        images: In the order of the file.
        others: What else the file says of itself, ``info`` and ``licenses``.
    """

    path: Path
    taxonomy: Taxonomy
    categories: Sequence[Entry]
    labels: Mapping[str, int]
    orientation: Orientation
    images: Sequence[CocoImage]
    others: Entry


def parse(path: Path) -> dict[str, Any]:
    """The JSON of a COCO file.

    Raises:
        AnnotationError: If it cannot be read, is no JSON, repeats a key, or is another kind of document.
    """

    def refuse(what: str, fix: str) -> NoReturn:
        raise AnnotationError(what, where=str(path), fix=fix)

    document = read_json(path, error=AnnotationError, fix='Give the annotations of a COCO data set (instances).')
    for kind, fix in other_documents(document):
        refuse(f'holds {kind}, not the annotations of instances', fix)
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            refuse(f'has no list {shown(key)}', 'Give the annotations of a COCO data set (instances).')
    return dict(document)


def other_documents(document: Any) -> list[tuple[str, str]]:
    """What a document is where it is known, but no file of instances, and what takes it; empty otherwise."""
    if isinstance(document, list):
        entry = document[0] if document and isinstance(document[0], dict) else {}
        if 'image_id' in entry and 'score' in entry:
            return [
                (
                    'detections (COCO results)',
                    'tools/compare.py --predictions takes them. Here, give the annotations of the data set.',
                )
            ]
        return []
    annotations = document.get('annotations') if isinstance(document, dict) else None
    entry = annotations[0] if isinstance(annotations, list) and annotations else {}
    if isinstance(entry, dict) and 'category_id' not in entry and 'caption' in entry:
        return [('captions', 'Give instances_*.json of the same data set.')]
    if isinstance(entry, dict) and 'segments_info' in entry:
        return [('panoptic segments', 'Give instances_*.json of the same data set.')]
    return []


def read_coco(
    path: Path,
    taxonomy: Taxonomy | None = None,
    *,
    images: Path,
    faults: Faults,
    orientation: Orientation | None = None,
    keep_root: bool = False,
    crowds: bool = True,
    max_pixels: int = MAX_PIXELS,
    absolute_paths: bool = False,
    progress: bool = False,
) -> CocoDocument:
    """Reads a COCO file, and the headers of its images.

    Args:
        path: The JSON.
        taxonomy: Its classes match the categories by id, or else by name.
        images: The folder that ``file_name`` is relative to.
        faults: Gets what was put right and what has to be refused.
        orientation: How the annotations lie on images whose EXIF data turns them; found out if omitted.
        keep_root: Keep a category above all others that is never annotated, as Roboflow writes one.
        crowds: False if ``iscrowd`` has no meaning in this file.
        max_pixels: Of an image; larger ones are refused.
        absolute_paths: Allow a ``file_name`` that leaves ``images``.
        progress: Show a bar on stderr.

    Raises:
        AnnotationError: On a file or categories that cannot be read.
        TaxonomyError: If the categories make no taxonomy.
    """
    document = parse(path)
    where = str(path)
    if not document['images']:
        raise AnnotationError('the split is empty: there are no images', where=where)
    document['categories'] = _categories(document, where, faults, keep_root=keep_root)
    if taxonomy is None and 'taxonomy' in document:
        taxonomy = Taxonomy.from_json(document['taxonomy'], where=where)
    if taxonomy is None:
        draft = coco_draft(document, where=where)
        taxonomy = draft.build()
        for advice in draft.warnings:
            faults.note(advice, 'categories')
        if not any(taxonomy.parents) and taxonomy.num_classes > 1:
            faults.note('categories without a supercategory: no hierarchy (--taxonomy names one)', *taxonomy.names)
    labels = match_categories(document['categories'], taxonomy, where=where)
    annotations = _by_image(document['annotations'], faults)
    entries = _images(document['images'], faults)
    for key in [key for key in annotations if key not in entries]:
        for name, entry in annotations.pop(key):
            what = f'image_id {shown(entry.get("image_id"))} is the id of no image'
            fix = 'Each annotation belongs to an image of the same file.'
            faults.refuse('annotations of no image', f'annotation {name}', what, fix)
    headers = {}
    for key, entry in tqdm(entries.items(), 'image headers', unit='image', disable=not progress):
        header = _Header.read(entry, key, images, faults, max_pixels=max_pixels, absolute_paths=absolute_paths)
        if header is not None:
            headers[key] = header
    runs = [entry for mine in annotations.values() for _, entry in mine if isinstance(entry.get('segmentation'), dict)]
    if crowds and runs and all(entry.get('iscrowd') == 1 and 'attributes' in entry for entry in runs):
        kind = 'masks that are all marked as crowds, as CVAT marks what is brushed, kept as groups (or --no-crowds)'
        faults.note(kind, *(f'annotation {entry.get("id")}' for entry in runs))
    chosen = orientation or _orientation(entries, headers, annotations, faults)
    found = [
        CocoImage(
            ImageRow(key_of(entries[key].get('source_id')) or key, header.file_name, *header.size(chosen)),
            _label_list(entries[key], 'pos_category_ids', labels, key, faults),
            _label_list(entries[key], 'neg_category_ids', labels, key, faults),
            _label_list(entries[key], 'not_exhaustive_category_ids', labels, key, faults),
            annotations.get(key, []),
            _kept({name: value for name, value in entries[key].items() if name not in OWN_KEYS}, faults),
        )
        for key, header in headers.items()
    ]
    others = _kept({name: value for name, value in document.items() if name in ('info', 'licenses')}, faults)
    categories = [_kept(entry, faults) for entry in document['categories']]
    return CocoDocument(path, taxonomy, categories, labels, chosen, found, others)


def _kept(entry: Entry, faults: Faults) -> dict[str, Any]:
    """An entry that the store keeps for the way back, with null in place of numbers that JSON does not know."""
    try:
        return dict(finite(entry))
    except RecursionError:
        raise faults.error('an entry is nested too deeply', 'Leave out what is in it.') from None


def checked_categories(entries: Sequence[Any], *, where: str) -> list[dict[str, Any]]:
    """The categories, each with an id of its own and a name; an AnnotationError at the first that is none."""
    seen: set[str] = set()
    categories = []
    for position, entry in enumerate(entries):
        key = key_of(entry.get('id')) if isinstance(entry, dict) else None
        if key is None:
            said = f'has the id {shown(entry["id"])}' if isinstance(entry, dict) and 'id' in entry else 'has no id'
            fix = 'Ids are whole numbers or texts, each used once.'
            raise AnnotationError(f'category number {position + 1} {said}', where=where, fix=fix)
        if key in seen:
            raise AnnotationError(f'the category id {key} occurs twice', where=where, fix='Ids are used once.')
        if not isinstance(entry.get('name'), str) or not entry['name'].strip():
            said = f'has the name {shown(entry["name"])}' if entry.get('name') not in NOTHING else 'has no name'
            raise AnnotationError(said, where=f'{where}, category {key}', fix='A name is a text.')
        if not isinstance(entry.get('supercategory', ''), str | None):
            said = f'has the supercategory {shown(entry["supercategory"])}'
            raise AnnotationError(said, where=f'{where}, category {key}', fix='It is a text, if there is any.')
        seen.add(key)
        categories.append(entry | {'id': int(key) if isinstance(entry['id'], float) else entry['id']})
    return categories


def _categories(document: dict[str, Any], where: str, faults: Faults, *, keep_root: bool) -> list[dict[str, Any]]:
    """The categories without Roboflow's root above all."""
    categories = checked_categories(document['categories'], where=where)
    root = _root_above_all(document)
    if root is None or keep_root:
        return categories
    faults.note('categories above all others and never annotated, left out (kept by --keep-root)', root)
    return [
        {name: value for name, value in entry.items() if (name, value) != ('supercategory', root)}
        for entry in categories
        if entry.get('supercategory') != 'none'
    ]


def _root_above_all(document: Mapping[str, Any]) -> str | None:
    """The name above all categories that tools write: of Roboflow's first category, or V7's ``root``.

    Roboflow's stands above all the others, ``none`` above it, and it is never annotated.
    """
    roots = [entry for entry in document['categories'] if entry.get('supercategory') == 'none']
    above = {entry.get('supercategory') for entry in document['categories'] if entry.get('supercategory') != 'none'}
    if not roots and above == {'root'}:
        return 'root'
    if len(roots) != 1 or above != {roots[0]['name']}:
        return None
    key, annotations = key_of(roots[0]['id']), document['annotations']
    used = any(isinstance(entry, dict) and key_of(entry.get('category_id')) == key for entry in annotations)
    return None if used else str(roots[0]['name'])


def match_categories(categories: Sequence[Entry], taxonomy: Taxonomy, *, where: str) -> dict[str, int]:
    """Category id, as text → label.

    All categories match by id (their ``class_id`` if they have it), or all by name; a name matches a class
    of that name or, failing that, of that id.

    Raises:
        AnnotationError: If that fails, or if ids and names match differently.
    """
    by_name: dict[str, int] = {}
    repeated = set()
    for label, name in enumerate(taxonomy.names):
        repeated |= {name} & by_name.keys()
        by_name[name] = label
    by_name = dict(taxonomy.label_of) | {name: label for name, label in by_name.items() if name not in repeated}
    keys = [str(key_of(category['id'])) for category in categories]
    ids = [key_of(category.get('class_id')) or key for key, category in zip(keys, categories, strict=True)]
    by_ids = {key: taxonomy.label_of.get(name) for key, name in zip(keys, ids, strict=True)}
    by_names = {key: by_name.get(category['name']) for key, category in zip(keys, categories, strict=True)}
    whole = [
        found for found in (by_ids, by_names) if None not in found.values() and len({*found.values()}) == len(found)
    ]
    if not whole:
        best = max(by_ids, by_names, key=lambda found: sum(label is not None for label in found.values()))
        names = {key: category['name'] for key, category in zip(keys, categories, strict=True)}
        missing = [f'{key} ({names[key]})' for key, label in best.items() if label is None]
        what = f'{len(missing)} of {len(categories)} categories are not in the taxonomy, such as '
        raise AnnotationError(
            what + ', '.join(missing[:5]) if missing else 'several categories match one class of the taxonomy',
            where=where,
            fix='Each category needs a class of its own, of that id or that name.',
        )
    if len(whole) == 2 and by_ids != by_names and not any('class_id' in category for category in categories):
        key = next(key for key, label in by_ids.items() if by_names[key] != label)
        raise AnnotationError(
            f'category {key} matches one class of the taxonomy by id and another one by name',
            where=where,
            fix='Give classes either the ids or the names of the categories, not those of others.',
        )
    return {key: label for key, label in whole[0].items() if label is not None}


def _by_image(entries: Sequence[Any], faults: Faults) -> dict[str, list[tuple[str, Entry]]]:
    """Image id → annotations with ids of their own, in the order of the file."""
    keys = [key_of(entry.get('id')) if isinstance(entry, dict) else None for entry in entries]
    count = Counter(keys)
    numbers = [int(key) for key in count if key is not None and key.isascii() and key.isdecimal()]
    following = max(numbers, default=0) + 1
    found: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
    seen: set[str] = set()
    for position, (entry, key) in enumerate(zip(entries, keys, strict=True)):
        place = f'annotation number {position + 1}'
        if not isinstance(entry, dict):
            fix = 'Annotations are objects with image_id, category_id, bbox.'
            faults.refuse('annotations that are no objects', place, f'is {shown(entry, 80)}', fix)
            continue
        if key is None or key in seen:
            given = entry.get('id')
            what = (
                f'the annotation id {key} occurs twice'
                if key
                else f'has the id {shown(given)}'
                if 'id' in entry
                else 'has no id'
            )
            faults.mend('annotations whose id is missing or taken, numbered anew', place, what)
            key = str(following)
            following += 1
        seen.add(key)
        image = key_of(entry.get('image_id'))
        found[image if image is not None else ''].append((key, entry))
    return found


def _images(entries: Sequence[Any], faults: Faults) -> dict[str, Entry]:
    """Image id → entry."""
    found: dict[str, Entry] = {}
    for position, entry in enumerate(entries):
        key = key_of(entry.get('id')) if isinstance(entry, dict) else None
        if key is None:
            said = f'has the id {shown(entry["id"])}' if isinstance(entry, dict) and 'id' in entry else 'has no id'
            fix = 'Ids are whole numbers or texts, each used once.'
            faults.refuse('images without an id', f'image number {position + 1}', said, fix)
        elif key not in found:
            found[key] = entry
        elif entry.get('file_name') == found[key].get('file_name'):
            faults.mend('images that are listed twice, taken once', f'image {key}', f'the image id {key} occurs twice')
        else:
            what = f'the image id {key} occurs twice, for different files'
            faults.refuse('images of an id that is taken', f'image {key}', what, 'Ids are used once.')
    return found


@dataclass(frozen=True)
class _Header:
    """What an image file says of itself.

    Attributes:
        file_name: Below the image folder.
        width: Pixels, as stored.
        height: Pixels, as stored.
        tag: Orientation of EXIF: 1 is upright, 2 to 4 keep the size, 5 to 8 exchange width and height.
    """

    file_name: str
    width: int
    height: int
    tag: int

    def size(self, orientation: Orientation) -> tuple[int, int]:
        """Width and height, as stored or turned."""
        exchanged = orientation == 'turned' and self.tag >= 5
        return (self.height, self.width) if exchanged else (self.width, self.height)

    @classmethod
    def read(
        cls, entry: Entry, key: str, folder: Path, faults: Faults, *, max_pixels: int, absolute_paths: bool
    ) -> _Header | None:
        """Reads the header of an image; None where there is none to be read."""
        place = f'image {key}'
        name, address = entry.get('file_name'), entry.get('coco_url')
        if name in NOTHING and isinstance(address, str) and address.count('/') >= 2:
            name = '/'.join(address.split('/')[-2:])
            faults.note('file names taken from coco_url', place)
        if not isinstance(name, str) or not name:
            faults.refuse(
                'images without a file name', place, f'file_name is {shown(name)}', 'It is a path in the image folder.'
            )
            return None
        plain = name.replace('\\', '/')
        candidates = [name, plain, plain.rsplit('/', 1)[-1]]
        within = [candidate for candidate in candidates if absolute_paths or not leaves_folder(candidate)]
        there = next((candidate for candidate in within if isfile(folder / candidate)), None)
        if there is None and len(within) < len(candidates):
            what = f'file_name {shown(name)} leaves the folder of the images'
            fix = 'It is a path in that folder; --absolute-paths allows others, of files that you trust.'
            faults.refuse('file names that leave the folder of the images', place, what, fix)
            return None
        if there is None:
            fix = 'Is --images the folder that file names are relative to?'
            faults.refuse('images without a file, left out', place, f'there is no such image: {folder / name}', fix)
            return None
        if there != name:
            faults.mend('file names with another folder than the image is in', place, f'there is no {folder / name}')
        try:
            with opened(folder / there, max_pixels=max_pixels) as file:
                # Of a PNG, getexif() would decode the whole image where the header holds no such data.
                tag = file.getexif().get(ORIENTATION_TAG, 1) if file.format != 'PNG' or 'exif' in file.info else 1
                header = cls(there, *file.size, tag if tag in range(1, 9) else 1)
        except AnnotationError as error:
            what = f'{folder / there} {error.what}'
            faults.refuse('images that cannot be read', place, what, 'Get it again.')
            return None
        header.compare(entry, place, faults)
        return header

    def compare(self, entry: Entry, place: str, faults: Faults) -> None:
        """Counts sizes of the JSON that are not the file's."""
        given = (entry.get('width'), entry.get('height'))
        turned = self.tag >= 5 and given == self.size('turned')
        if given != (self.width, self.height) and not turned:
            said = f'width x height is {shown(given[0])} x {shown(given[1])}'
            what = f'{said}, the file has {self.width} x {self.height} pixels'
            faults.mend("images whose size is not the file's, replaced by it", place, what)


def _orientation(
    entries: Mapping[str, Entry],
    headers: Mapping[str, _Header],
    annotations: Mapping[str, Sequence[tuple[str, Entry]]],
    faults: Faults,
) -> Orientation:
    """How annotations lie on images that EXIF turns: as all those say that fit only one way, else as stored.

    One tool draws a whole file, so that images that leave no doubt decide for the others.
    """
    votes: dict[Orientation, list[str]] = {'stored': [], 'turned': []}
    undecided = []
    for key, header in headers.items():
        stored = (header.width, header.height)
        mine = [entry for _, entry in annotations.get(key, [])]
        if header.tag == 1:
            size = (entries[key].get('width'), entries[key].get('height'))
            if size == stored[::-1] != stored and not _fits(mine, *stored):
                what = (
                    f'the annotations lie on an image of {size[0]} x {size[1]}, the file has {stored[0]} x {stored[1]}'
                )
                faults.refuse('images turned after they were annotated', f'image {key}', what, 'Turn the image back.')
            continue
        fitting: list[Orientation] = [way for way in votes if _fits(mine, *header.size(way))]
        if len(fitting) != 1 and header.width != header.height:
            given = (entries[key].get('width'), entries[key].get('height'))
            fitting = [way for way in votes if given == header.size(way)] if header.tag >= 5 else []
        if len(fitting) == 1:
            votes[fitting[0]].append(key)
        else:
            undecided.append(key)
    if votes['stored'] and votes['turned']:
        what = f'image {votes["stored"][0]} is annotated as stored, image {votes["turned"][0]} as EXIF turns it'
        raise faults.error(what, 'Say --orientation stored or --orientation turned.')
    chosen: Orientation = 'turned' if votes['turned'] else 'stored'
    if votes['turned']:
        faults.note('images annotated as EXIF turns them, read so', *(f'image {key}' for key in votes['turned']))
    elif not votes['stored']:
        for key in undecided:
            kind = (
                'images that EXIF turns, with annotations that fit both ways, read as stored (or --orientation turned)'
            )
            faults.mend(kind, f'image {key}')
    return chosen


def _fits(annotations: Sequence[Entry], width: int, height: int) -> bool:
    """True if boxes, polygons and run lengths lie within an image, but for a pixel."""
    for entry in annotations:
        segmentation, box = entry.get('segmentation'), entry.get('bbox')
        if isinstance(segmentation, dict) and segmentation.get('size') not in (None, [height, width]):
            return False
        polygons = (
            [polygon for polygon in segmentation if isinstance(polygon, list)] if isinstance(segmentation, list) else []
        )
        points = [polygon for polygon in polygons if polygon and all(map(is_number, polygon))]
        if is_quadruple(box):
            points.append([box[0] + box[2], box[1] + box[3]])
        for flat in points:
            if max(flat[0::2]) > width + 1 or max(flat[1::2], default=0) > height + 1:
                return False
    return True


def _label_list(entry: Entry, name: str, labels: Mapping[str, int], key: str, faults: Faults) -> list[int] | None:
    """Labels of a list of category ids; None where the image has no such list."""
    if entry.get(name) is None:
        return None
    listed = entry[name]
    keys = [key_of(number) or '' for number in listed] if isinstance(listed, list) else ['']
    if not all(number in labels for number in keys):
        what = f'{name} is {shown(listed, 80)}'
        faults.refuse('lists of categories that are none', f'image {key}', what, 'It is a list of category ids.')
    return [labels[number] for number in keys if number in labels]
