"""One rank of a distributed evaluation: python evaluate_one_rank.py RANK STORE IMAGE,IMAGE."""

from __future__ import annotations

import json
import sys

import torch.distributed
from open_images_samples import sample
from taxonomies import BEAR, TEDDY

from hierseg.evaluation import OpenImagesInstanceMetric


def main(rank: int, store: str, images: list[str]) -> None:
    torch.distributed.init_process_group('gloo', init_method=f'file://{store}.rendezvous', rank=rank, world_size=2)
    metric = OpenImagesInstanceMetric(store, submission_file='two.csv')
    for image in images:
        metric.process(None, [sample(image, ((0, 0, 4, 4), {TEDDY: 0.7, BEAR: 0.8}))])
    print(json.dumps(metric.evaluate(3)))
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3].split(','))
