"""Shows how the two-layer ensemble comes to its instances on one image: layer 0 | layer 1 | final, and a table."""

from __future__ import annotations

import argparse
from pathlib import Path

from hierseg.arguments import add_config_options
from hierseg.errors import exits_cleanly


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of an ensemble')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--image', required=True, metavar='FILE', help='the image')
    parser.add_argument(
        '--out', type=Path, metavar='PNG', help='picture to write; default: work_dirs/explain_ensemble/<image>.png'
    )
    parser.add_argument('--score-thr', type=float, default=0.3, help='instances below are not shown; default: 0.3')
    parser.add_argument('--device', help='such as cuda:0 or cpu; default: the first GPU, if there is one')
    add_config_options(parser)
    return parser.parse_args()


@exits_cleanly()
def main() -> None:
    arguments = parse_arguments()
    from hierseg.apis import explain_ensemble
    from hierseg.files import output_file
    from hierseg.pictures import write_picture
    from hierseg.report.flow import draw_flow, flow_rows

    out = output_file(arguments.out or Path('work_dirs/explain_ensemble') / f'{Path(arguments.image).stem}.png')
    flow = explain_ensemble(
        arguments.config, arguments.checkpoint, arguments.image, device=arguments.device, options=arguments.cfg_options
    )
    for row in flow_rows(flow, score_threshold=arguments.score_thr):
        print(row)
    write_picture(draw_flow(flow, score_threshold=arguments.score_thr), out)
    print(f'picture: {out}')


if __name__ == '__main__':
    main()
