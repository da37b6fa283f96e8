"""Joins the checkpoints of two layers that were trained alone into one of the two-layer ensemble."""

from __future__ import annotations

import argparse

from hierseg.errors import exits_cleanly


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('layer0', metavar='LAYER0.pth', help='checkpoint of configs/two_layer/layer0.py')
    parser.add_argument('layer1', metavar='LAYER1.pth', help='checkpoint of configs/two_layer/layer1.py')
    parser.add_argument('--out', required=True, metavar='ENSEMBLE.pth', help='checkpoint to write')
    return parser.parse_args()


@exits_cleanly()
def main() -> None:
    arguments = parse_arguments()
    from hierseg.apis import join_layers

    joined = join_layers(arguments.layer0, arguments.layer1, arguments.out)
    classes = joined['meta']['dataset_meta']['classes']
    print(f'{arguments.out}: {len(joined["state_dict"])} tensors, {len(classes)} classes')


if __name__ == '__main__':
    main()
