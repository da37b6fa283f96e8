"""The official files of Open Images, as the download pages and the host of the images name them.

Sources: https://storage.googleapis.com/openimages/web/challenge2019_downloads.html and …/web/download_v7.html for
tables, masks and classes; https://github.com/cvdfoundation/open-images-dataset for images, their number and size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hierseg.errors import ConfigError

BASE_URL = 'https://storage.googleapis.com/openimages/'
IMAGES_URL = 'https://open-images-dataset.s3.amazonaws.com/'

SPLITS = ('train', 'validation', 'test')
RELEASES = ('challenge-2019', 'v7')
FIRST_DIGITS = '0123456789abcdef'

NUM_IMAGES: Mapping[str, int] = {'train': 1_743_042, 'validation': 41_620, 'test': 125_436}
"""Images on the host, of which the challenge's tables name a part."""
IMAGE_BYTES = 294_000
"""Mean of the three splits: 561 GB for 1,910,098 images of at most 1024 pixels."""


@dataclass(frozen=True)
class SplitFiles:
    """Paths below the base address, of one split in one release.

    Attributes:
        hierarchy: The class hierarchy.
        classes: Class ids and names.
        boxes: Table of boxes.
        labels: Table of image labels verified by people.
        masks: Table of masks.
        archives: First hex digit of an image's id → zip of its mask PNGs.
    """

    hierarchy: str
    classes: str
    boxes: str
    labels: str
    masks: str
    archives: Mapping[str, str]

    @property
    def tables(self) -> tuple[str, ...]:
        """All but the archives."""
        return self.hierarchy, self.classes, self.boxes, self.labels, self.masks


def split_files(release: str, split: str) -> SplitFiles:
    """The files of a split.

    Args:
        release: One of ``RELEASES``. Masks of V5, V6 and V7 are the same files.
        split: One of ``SPLITS``.

    Raises:
        ConfigError: If the release has no annotations of that split.
    """
    if release == 'v7':
        boxes = 'v6/oidv6-train-annotations-bbox.csv' if split == 'train' else f'v5/{split}-annotations-bbox.csv'
        return SplitFiles(
            hierarchy='2018_04/bbox_labels_600_hierarchy.json',
            classes='v7/oidv7-class-descriptions-boxable.csv',
            boxes=boxes,
            labels=f'v5/{split}-annotations-human-imagelabels-boxable.csv',
            masks=f'v5/{split}-annotations-object-segmentation.csv',
            archives={digit: f'v5/{split}-masks/{split}-masks-{digit}.zip' for digit in FIRST_DIGITS},
        )
    if split == 'test':
        raise ConfigError(
            'the annotations of the test images of the Challenge 2019 were never published',
            fix='Take --split validation, or --release v7, whose test split has masks.',
        )
    folder = 'challenge_2019'
    table = f'{folder}/challenge-2019-{split}-segmentation'
    return SplitFiles(
        hierarchy=f'{folder}/challenge-2019-label300-segmentable-hierarchy.json',
        classes=f'{folder}/challenge-2019-classes-description-segmentable.csv',
        boxes=f'{table}-bbox.csv',
        labels=f'{table}-labels.csv',
        masks=f'{table}-masks.csv',
        archives={digit: f'{folder}/{split}-masks/challenge-2019-{split}-masks-{digit}.zip' for digit in FIRST_DIGITS},
    )


def image_file(split: str, image_id: str) -> str:
    """The path of an image below the address of images."""
    return f'{split}/{image_id}.jpg'
