"""One rank of a training step, the second without any RoI: python roi_head_one_rank.py RANK FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed
from mmengine.structures import InstanceData
from taxonomies import BEAR, CAR
from tiny_models import sample, tiny_model

from hierseg.registry import MODELS


def main(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2)
    torch.manual_seed(0)
    config = tiny_model().roi_head
    config.bbox_head.loss_cls.balance = [dict(type='seesaw'), dict(type='eql')]
    # The detector would hand it over.
    rcnn = MODELS.build(tiny_model()).train_cfg.rcnn
    head = MODELS.build(dict(config, train_cfg=rcnn, test_cfg=dict(mask_thr_binary=0.5)))
    for empty in (False, rank == 1, False):
        data = sample([], masks=[]) if empty else sample([BEAR, CAR], masks=[True, True])
        boxes = torch.tensor([[4.0, 20, 28, 44], [50, 5, 90, 60]])[: 0 if empty else 2]
        features = tuple(torch.ones(1, 16, 16 >> level, 24 >> level) for level in range(4))
        losses = head.loss(features, [InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes)).long())], [data])
        head.zero_grad()
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        # The wrapper of a distributed model waits for the gradient of every parameter.
        missing = [name for name, parameter in head.named_parameters() if parameter.grad is None]
        if missing or (empty and losses['loss_cls'].item() != 0):
            raise SystemExit(f'loss {losses}, without gradient: {missing}')
    torch.save(head.bbox_head.loss_cls.state_dict(), folder / f'state{rank}.pt')
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main(int(sys.argv[1]), Path(sys.argv[2]))
