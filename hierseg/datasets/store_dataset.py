"""One data set for every store: Open Images and COCO both arrive here."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import numpy.typing as npt
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import BaseDetDataset
from mmengine.dataset import Compose
from mmengine.fileio import exists, get, join_path

from hierseg.datasets.mixing import MixingTransform
from hierseg.datasets.transforms import PaintBoxes
from hierseg.errors import AnnotationError, ConfigError, StoreError
from hierseg.formats.run_lengths import MalformedMaskError, check_counts, compress_runs
from hierseg.registry import DATASETS
from hierseg.seeding import SeededSamples
from hierseg.store import ImageRow, LayerView, Store
from hierseg.store.frequency import TrainingLabels
from hierseg.store.layers import trainable
from hierseg.taxonomy import read_taxonomy
from hierseg.taxonomy.graph import require_same_class_names, require_same_taxonomy

CHECKED_IMAGES = 8  # whose files must exist at the start; looking for all of 850,000 would take minutes


COLOR_TYPES = {'stored': 'color_ignore_orientation', 'turned': 'color'}
"""How mmcv reads a color image, by the orientation of a store."""


@DATASETS.register_module()
class StoreDataset(SeededSamples, BaseDetDataset):
    """Reads annotations from a memory-mapped store, one image at a time.

    MMEngine pickles the annotations of all images into one array. Here ``data_list`` is an array of store
    rows and everything else stays in the page cache, which all ranks and workers share.

    A sample is mmdet's (``img_path``, ``img_id``, ``height``, ``width``, ``instances``) with three additions,
    ``verified_positive`` and ``verified_negative``: (K,) int64 labels that people verified as present or absent on
    the image, and ``not_exhaustive``: those of which not every instance is annotated. Name them in the ``meta_keys`` of
    ``PackDetInputs`` where a loss needs them. Labels are as released, not expanded to ancestors.

    - Masks are COCO's compressed run-length encodings. A box without a mask gets an empty one: an all-zero plane in
      ``gt_masks`` says *unknown*, through every transform, and must train no mask head
      (``FilterAnnotations(by_mask=True)`` drops it).
    - Group-of boxes, and boxes of which a side is shorter than one pixel, have ``ignore_flag`` 1.
    - Images that EXIF data turns are read as the store's annotations lie, ``stored`` or ``turned``, whatever
      ``color_type`` the pipeline's ``LoadImageFromFile`` has.
    - ``hierseg.Mosaic`` and ``hierseg.MixUp`` draw their partners from the images that follow in the stream.
    - ``filter_cfg=dict(filter_empty_gt=True, min_size=32)`` means what it does in mmdet, and counts only instances
      that are not ignored. Nothing is filtered where ``test_mode=True``.
    - ``metainfo`` holds ``classes`` (names), ``class_ids`` and ``taxonomy`` (``Taxonomy.to_json()``).

    With ``layer``, the data set is what that layer of the two-layer ensemble is trained on
    (:class:`~hierseg.store.LayerView` has the rules): classes and labels are the layer's, and a sample also has
    ``painted_boxes``, (P, 4) float64 xyxy pixels, for ``hierseg.PaintBoxes``, which the pipeline of layer 1 must have
    where ``test_mode`` is off. ``metainfo`` tells the ``layer`` and the store's ``whole_taxonomy``, so that a
    checkpoint of the layer alone knows where it belongs.

    Args:
        store: Folder of the store, not joined to ``data_root``, so that the same text serves data set and metric.
        layer: 0 for root classes, 1 for all deeper ones, None for the classes of the store.
        images_per_class: At most so many images for each class of the layer; None for all.
        seed: Chooses those images, before ``filter_cfg`` looks at them.
        taxonomy: A taxonomy file that must hold the classes, order and parents of the whole store's.
        **kwargs: What ``BaseDetDataset`` takes. ``data_prefix=dict(img=...)`` is the image folder.

    Raises:
        StoreError: If the store cannot be opened.
        ConfigError: If taxonomy or class names differ from the store's, if no image is left, if layer 1 is not
            painted, if meta_keys lack ``not_exhaustive``, or on an argument that has no meaning here.
        AnnotationError: If an image is missing or unreadable, or of another size than the store says.
    """

    def __init__(
        self,
        store: str | Path,
        *,
        layer: int | None = None,
        images_per_class: int | None = None,
        seed: int = 0,
        taxonomy: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ('ann_file', 'proposal_file'):
            if kwargs.get(name):
                fix = 'Remove it; to replace an inherited data set, add _delete_=True.'
                raise ConfigError(f'{name}={kwargs[name]!r} has no meaning for a store', where='StoreDataset', fix=fix)
        opened = Store.open(store)
        if taxonomy is not None:
            where = f'StoreDataset, taxonomy {taxonomy} against store {opened.path}'
            require_same_taxonomy(opened.taxonomy, read_taxonomy(taxonomy), where=where)
        if layer is None and images_per_class is not None:
            what = f'images_per_class={images_per_class} without a layer'
            fix = 'Give layer=0 or layer=1, or leave images_per_class out.'
            raise ConfigError(what, where='StoreDataset', fix=fix)
        self._opened = opened
        self._following: tuple[int, ...] = ()
        self.store: Store | LayerView = opened
        if layer is not None:
            self.store = LayerView(opened, layer, images_per_class=images_per_class, seed=seed)
        kwargs['metainfo'] = self._complete_metainfo(kwargs.get('metainfo'))
        kwargs['serialize_data'] = False
        super().__init__(**{'data_prefix': dict(img=''), **kwargs})

    @property
    def pipeline(self) -> Any:
        """The transforms of a sample; another pipeline may be set while training, as ``PipelineSwitchHook`` does."""
        return self._pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Any) -> None:
        transforms = pipeline.transforms
        for number, transform in enumerate(transforms):
            # Annotations lie on the pixels as the store says, whatever the pipeline's loader would do.
            if isinstance(transform, LoadImageFromFile) and transform.color_type in COLOR_TYPES.values():
                transform.color_type = COLOR_TYPES[self._opened.orientation]
            if isinstance(transform, MixingTransform):
                transform.arrays = self.store.taxonomy.arrays
                transform.draw_partner = partial(self._draw_partner, Compose(transforms[:number]))
        if not self.test_mode:
            self._check(transforms)
        self._pipeline = pipeline

    def _check(self, transforms: Sequence[Any]) -> None:
        """Refuses a pipeline for training that would hide what the store knows."""
        where = f'StoreDataset of {self.store.path}'
        for transform in transforms if self._opened.has_not_exhaustive else []:
            keys = getattr(transform, 'meta_keys', ())
            if 'verified_negative' in keys and 'not_exhaustive' not in keys:
                what = "classes that are not annotated exhaustively, and meta_keys without 'not_exhaustive'"
                fix = "Put 'not_exhaustive' beside 'verified_negative' into the meta_keys of PackDetInputs."
                raise ConfigError(what, where=where, fix=fix)
        painted = isinstance(self.store, LayerView) and self.store.layer == 1
        if painted and transforms and not any(isinstance(transform, PaintBoxes) for transform in transforms):
            what = 'layer=1, and the pipeline does not paint the boxes of root classes'
            fix = "Put dict(type='hierseg.PaintBoxes') directly behind LoadImageFromFile."
            raise ConfigError(what, where=where, fix=fix)

    def _complete_metainfo(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """Adds classes and taxonomy of the store to what a configuration says."""
        taxonomy = self.store.taxonomy
        metainfo = self._load_metainfo(given)
        if 'classes' in metainfo:
            where = f'StoreDataset, metainfo classes against store {self.store.path}'
            require_same_class_names(taxonomy.names, metainfo['classes'], where=where)
        found = {**metainfo, **taxonomy.dataset_meta()}
        if isinstance(self.store, LayerView):
            found |= {'layer': self.store.layer, 'whole_taxonomy': self.store.store.taxonomy.to_json()}
        return found

    def _join_prefix(self) -> None:
        if 'img' not in self.data_prefix:
            what = f'data_prefix={self.data_prefix} names no image folder'
            raise ConfigError(what, where='StoreDataset', fix="Use data_prefix=dict(img='folder').")
        super()._join_prefix()

    def full_init(self) -> None:
        """Chooses the rows and looks whether a few of their images exist."""
        if self._fully_initialized:
            return
        super().full_init()
        for index in np.unique(np.linspace(0, len(self) - 1, min(CHECKED_IMAGES, len(self))).astype(int)):
            image = self.store.image(int(self.data_list[index]))
            path = join_path(self.data_prefix['img'], image.file_name)
            if not exists(path, backend_args=self.backend_args):
                raise _missing(path, f'image {image.id}')

    def load_data_list(self) -> npt.NDArray[np.int32]:
        """All rows of the store."""
        return np.arange(len(self.store), dtype=np.int32)

    def filter_data(self) -> npt.NDArray[np.int32]:
        """The rows that ``filter_cfg`` leaves, found in whole columns without reading a mask."""
        rows: npt.NDArray[np.int32] = self.data_list
        if self.test_mode or self.filter_cfg is None:
            return rows
        sides = np.minimum(self.store.image_column('width'), self.store.image_column('height'))
        keep = sides >= self.filter_cfg.get('min_size', 0)
        if self.filter_cfg.get('filter_empty_gt', False):
            keep[np.bincount(TrainingLabels.of(self.store).images, minlength=len(keep)) == 0] = False
        if not keep.any():
            what = f'filter_cfg={dict(self.filter_cfg)} leaves none of {len(rows)} images'
            fix = 'Does the split have instances that are not group-of?'
            raise ConfigError(what, where=str(self.store.path), fix=fix)
        return rows[keep[rows]]

    def _get_unserialized_subset(self, indices: int | Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        rows: npt.NDArray[np.int32] = self.data_list
        if isinstance(indices, int):
            return rows[:indices] if indices >= 0 else rows[indices:]
        return rows[np.asarray(indices, dtype=np.int64)]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The annotations of one image, as mmdet's transforms take them."""
        self.full_init()
        row = int(self.data_list[idx])
        image = self.store.image(row)
        positive, negative = self.store.verified(row)
        sample = {
            'img_path': join_path(self.data_prefix['img'], image.file_name),
            'img_id': image.id,
            'height': image.height,
            'width': image.width,
            'instances': self._instances(row, image),
            'verified_positive': positive,
            'verified_negative': negative,
            'not_exhaustive': self.store.not_exhaustive(row),
            'sample_idx': idx if idx >= 0 else len(self) + idx,
        }
        if isinstance(self.store, LayerView):
            sample['painted_boxes'] = self.store.painted(row)
        return sample

    def _instances(self, row: int, image: ImageRow) -> list[dict[str, Any]]:
        found = self.store.instances(row)
        ignored = ~trainable(found.boxes, found.group_of)
        size = [image.height, image.width]
        # mmdet ignores an instance whose counts are bytes; text it reads.
        empty = compress_runs(np.array([image.height * image.width]))
        self._check_masks(found.masks, image)
        counts = [(mask or empty).decode() for mask in found.masks]
        return [
            {'bbox': box, 'bbox_label': label, 'ignore_flag': flag, 'mask': {'size': size, 'counts': encoded}}
            for box, label, flag, encoded in zip(
                found.boxes.tolist(), found.labels.tolist(), ignored.astype(int).tolist(), counts, strict=True
            )
        ]

    def _check_masks(self, masks: Sequence[bytes], image: ImageRow) -> None:
        """Refuses damaged masks: pycocotools trusts what it decodes, and a wild one would end the process."""
        for mask in filter(None, masks):
            try:
                check_counts(mask, image.height, image.width)
            except MalformedMaskError as error:
                raise StoreError(
                    f'a mask of image {image.id} is damaged ({error})',
                    where=str(self.store.path),
                    fix='Look for more with python -m hierseg.store --all; convert the data set again.',
                ) from None

    def get_cat_ids(self, idx: int) -> list[int]:
        """Labels of the image's instances, found without reading a mask; ignored ones included."""
        self.full_init()
        row = int(self.data_list[idx])
        first = self.store.first_instances[row]
        labels: list[int] = self.store.labels[first : first + self.store.num_instances_per_image[row]].tolist()
        return labels

    def __getitem__(self, idx: int) -> Any:
        """The image after the pipeline, or another one where the pipeline refuses it."""
        self._following = getattr(idx, 'following', ())
        return super().__getitem__(idx)

    def _draw_partner(self, transforms: Compose) -> Any:
        """A sample to mix with the one at hand: an image that follows it in the stream, after some transforms.

        Without a stream it is any image. It is drawn by the global generators, which the place of the sample seeds.
        """
        for _ in range(self.max_refetch + 1):
            index = random.choice(self._following or range(len(self)))
            partner = self._transformed(index, transforms)
            if partner is not None:
                return partner
        what = f'the transforms before a mixing one refuse every image, {self.max_refetch + 1} times'
        raise ConfigError(what, where=f'StoreDataset of {self.store.path}', fix=f'Look at {transforms}.')

    def prepare_data(self, idx: int) -> Any:
        """The image after the pipeline.

        Raises:
            AnnotationError: If the image is why the pipeline failed, or has another size than the store says.
        """
        return self._transformed(idx, self.pipeline)

    def _transformed(self, idx: int, transforms: Callable[[dict[str, Any]], Any]) -> Any:
        sample = self.get_data_info(idx)
        try:
            packed = transforms(sample)
        except Exception as error:
            if fault := self._fault(sample):
                raise fault from error
            raise
        if fault := self._other_size(sample):
            raise fault
        return packed

    def _fault(self, sample: Mapping[str, Any]) -> AnnotationError | None:
        """The fault of an image file, looked for only after something failed.

        ``ori_shape`` in the sample, which mmdet's loaders set, tells that the image was read.
        """
        if 'ori_shape' in sample:
            return self._other_size(sample)
        path, where = sample['img_path'], f'image {sample["img_id"]}'
        if not exists(path, backend_args=self.backend_args):
            return _missing(path, where)
        content = get(path, backend_args=self.backend_args)
        # OpenCV fails on an empty file with an error of its own.
        if not content or mmcv.imfrombytes(content) is None:
            return AnnotationError(f'{path} is no readable image', where=where, fix='Fetch it again.')
        return None

    def _other_size(self, sample: Mapping[str, Any]) -> AnnotationError | None:
        """The error of an image that was read with another size than the store has, else None."""
        expected = (sample['height'], sample['width'])
        height, width = sample.get('ori_shape', expected)
        if (height, width) == expected:
            return None
        return AnnotationError(
            f'{sample["img_path"]} was read with {width} x {height} pixels, '
            f'the store says {expected[1]} x {expected[0]}',
            where=f'image {sample["img_id"]}',
            fix='Convert with the images that you train on.',
        )


def _missing(path: str, where: str) -> AnnotationError:
    fix = 'Check data_root and data_prefix, or fetch the image.'
    return AnnotationError(f'{path} does not exist', where=where, fix=fix)
