"""One rank of a training step with every balance: python balance_one_rank.py RANK FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed
from taxonomies import teddy_taxonomy

from hierseg.models import HierarchicalLoss


def main(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2)
    loss = HierarchicalLoss(teddy_taxonomy(), balance=[dict(type='seesaw'), dict(type='eql')])
    for logits, labels in torch.load(folder / 'batches.pt'):
        loss(logits[rank::2].requires_grad_(), labels[rank::2])
    torch.save(loss.state_dict(), folder / f'state{rank}.pt')
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main(int(sys.argv[1]), Path(sys.argv[2]))
