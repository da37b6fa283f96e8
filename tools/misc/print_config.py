"""Prints a config with everything that it builds on."""

from __future__ import annotations

import argparse
from pathlib import Path

from hierseg.arguments import add_config_options
from hierseg.errors import ConfigError, exits_cleanly
from hierseg.files import make_folder, output_file, whole_path


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--save-path', type=Path, help='write the whole config here, as .py, .json or .yml')
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from mmdet.utils import replace_cfg_vals, update_data_root

    from hierseg.apis import read_config

    with exits_cleanly():
        target = arguments.save_path
        if target is not None and target.suffix not in ('.py', '.json', '.yml'):
            raise ConfigError('a config is saved as .py, .json or .yml', where=str(target))
        if target is not None:
            output_file(target)
        # ${key} stands for another value of the config, MMDET_DATASETS for the data root.
        config = replace_cfg_vals(read_config(arguments.config))
        update_data_root(config)
        config.merge_from_dict(arguments.cfg_options or {})
        print(f'Config:\n{config.pretty_text}')
        if target is not None:
            make_folder(target.parent)
            with whole_path(target) as path:
                config.dump(path)
            print(f'Config saved at {target}')


if __name__ == '__main__':
    main()
