"""Judges exported models beside the model that they come from, on every image of the config's test data.

Example:
    python tools/benchmarks/exported.py configs/hier_rtmdet_s.py work_dirs/hier_rtmdet_s/epoch_40.pth \
        model.onnx model.int8.onnx
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hierseg.arguments import add_config_options
from hierseg.errors import ConfigError, exits_cleanly
from hierseg.files import write_json
from hierseg.machine import describe_machine


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file of a real-time model')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('models', nargs='+', type=Path, metavar='MODEL.onnx', help='its exports')
    parser.add_argument('--images', type=int, help='how many, from the first; all if not given')
    parser.add_argument('--out', type=Path, help='write the figures as JSON, too')
    add_config_options(parser)
    return parser.parse_args()


def instances_of(found: Any) -> dict[str, Any]:
    """Detections as an evaluator takes them."""
    import torch

    arrays = {'bboxes': found.boxes, 'scores': found.scores, 'labels': found.labels, 'class_scores': found.class_scores}
    return {name: torch.from_numpy(array) for name, array in {**arrays, 'masks': found.decoded_masks()}.items()}


@exits_cleanly()
def main() -> None:
    arguments = parse_arguments()
    from mmengine.evaluator import Evaluator
    from mmengine.runner import Runner

    from hierseg.apis.configs import load_config
    from hierseg.apis.export import compare_found, load_picture
    from hierseg.apis.trained import TrainedModel
    from hierseg.deploy import load_model

    config = load_config(arguments.config, options=arguments.cfg_options)
    # First, since it tells the registries where the config's names are from.
    trained = TrainedModel(arguments.config, arguments.checkpoint, device='cpu', options=arguments.cfg_options)
    alone = {'num_workers': 0, 'persistent_workers': False}
    dataset = Runner.build_dataloader({**config.test_dataloader, **alone}).dataset
    systems: dict[str, Any] = {
        'torch': lambda picture: trained([picture])[0],
        **{str(path): load_model(path) for path in arguments.models},
    }
    evaluators = {name: Evaluator(config.test_evaluator) for name in systems}
    found: dict[str, list[Any]] = {name: [] for name in systems}
    for index in range(min(arguments.images or len(dataset), len(dataset))):
        info = dataset.get_data_info(index)
        picture = load_picture(config, info['img_path'])
        for name, system in systems.items():
            found[name].append(system(picture))
            sample = {'img_id': info['img_id'], 'pred_instances': instances_of(found[name][-1])}
            evaluators[name].dataset_meta = dataset.metainfo
            evaluators[name].process([sample])
    if not found['torch']:
        raise ConfigError('there are no images', where=arguments.config)
    figures: dict[str, Any] = {'machine': describe_machine()}
    for name in systems:
        scores = evaluators[name].evaluate(len(found[name]))
        figures[name] = {
            key: float(value) for key, value in scores.items() if key.endswith(('mAP', 'mAP_layer0', 'mAP_layer1'))
        }
        line = ', '.join(f'{key} {value:.4f}' for key, value in figures[name].items())
        if name != 'torch':
            differences = compare_found(found['torch'], found[name])
            figures[name] |= {**vars(differences), 'megabytes': Path(name).stat().st_size / 1e6}
            line += f'; {figures[name]["megabytes"]:.1f} MB; {differences}'
        print(f'{name}: {line}')
    if arguments.out:
        write_json(figures, arguments.out)


if __name__ == '__main__':
    main()
