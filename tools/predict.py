"""Applies a trained or exported model to images, folders, videos and cameras, and writes what it found.

Example:
    python tools/predict.py configs/hier_e2e.py epoch_12.pth street.jpg holiday/ 'more/*.png' clip.mp4 --out found
    python tools/predict.py model.onnx camera:0 --out found
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hierseg.arguments import add_config_options
from hierseg.errors import exits_cleanly
from hierseg.limits import add_max_pixels
from hierseg.threads import choose_threads


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage='%(prog)s [OPTIONS] (CONFIG CHECKPOINT | MODEL.onnx) INPUT [INPUT ...] --out DIR',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config file, or an exported model (.onnx)')
    parser.add_argument(
        'files', nargs='+', metavar='CHECKPOINT INPUT',
        help='the checkpoint, if it is a config; then images, videos, folders of images, patterns such as '
        "'a/**/*.jpg', cameras (camera:0 is the first)",
    )  # fmt: skip
    parser.add_argument('--out', type=Path, required=True, help='folder of found.jsonl, pictures/ and videos/')
    parser.add_argument(
        '--formats', nargs='+', choices=['jsonl', 'coco', 'csv'], default=['jsonl'],
        help='found.jsonl, found.json of COCO, found.csv; default: jsonl',
    )  # fmt: skip
    parser.add_argument('--no-pictures', action='store_true', help='write no pictures and videos')
    parser.add_argument('--score-thr', type=float, default=0.3, help='leave out less probable ones; default: 0.3')
    parser.add_argument('--rule', help="which class to name: back_off, leaf or distance; default: the config's")
    parser.add_argument(
        '--threshold', type=float, help="what back_off needs of the root's probability; default: the config's"
    )
    parser.add_argument('--device', help='such as cuda:0 or cpu; default: the first GPU, else the CPU')
    parser.add_argument('--batch-size', type=int, default=1, help='images that are computed together; default: 1')
    parser.add_argument('--max-frames', type=int, help='look at so many frames of each video or camera')
    parser.add_argument(
        '--orientation', choices=['turned', 'stored'], default='turned',
        help='images as EXIF data turn them, or as they are stored; default: turned',
    )  # fmt: skip
    add_max_pixels(parser)
    add_config_options(parser)
    arguments = parser.parse_args()
    arguments.checkpoint = None if arguments.config.endswith('.onnx') else arguments.files.pop(0)
    if not arguments.files:
        parser.error('name an input behind the checkpoint')
    return arguments


@exits_cleanly()
def main() -> None:
    arguments = parse_arguments()
    choose_threads()
    from hierseg.prediction import predict

    done = predict(
        arguments.config,
        arguments.checkpoint,
        arguments.files,
        arguments.out,
        formats=arguments.formats,
        pictures=not arguments.no_pictures,
        max_frames=arguments.max_frames,
        orientation=arguments.orientation,
        max_pixels=arguments.max_pixels,
        score_thr=arguments.score_thr,
        rule=arguments.rule,
        threshold=arguments.threshold,
        device=arguments.device,
        batch_size=arguments.batch_size,
        options=arguments.cfg_options,
    )
    print(f'{done.instances} instances on {done.images} images, in {arguments.out}')
    if done.unreadable:
        print(f'{len(done.unreadable)} not read:', *done.unreadable, sep='\n  ', file=sys.stderr)
        raise SystemExit(1)


if __name__ == '__main__':
    main()
