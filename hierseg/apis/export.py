"""A trained real-time model as one ONNX file that knows its classes, compared with the model that it comes from."""

from __future__ import annotations

import glob
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from mmdet.evaluation.functional import bbox_overlaps
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.dataset import Compose
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn

from hierseg import __version__
from hierseg.apis.onnx_graph import OPERATOR, OnnxGraph, suppress_in_onnx
from hierseg.apis.runner import tested_images
from hierseg.apis.trained import TrainedModel
from hierseg.deploy import load_model as open_exported
from hierseg.deploy.identity import PREFIX, VERSION, sealed
from hierseg.deploy.model import OUTPUTS
from hierseg.deploy.pictures import fitted_size
from hierseg.errors import ConfigError
from hierseg.files import disk_faults, output_file, write_atomically
from hierseg.found import Found
from hierseg.locks import locked_file
from hierseg.models.rtmdet_head import HierarchicalRTMDetInsHead

OPSET = 17
SCORE_TOLERANCE, BOX_TOLERANCE = 1e-5, 1e-3
"""The most that probabilities and boxes, in pixels, may differ."""
DYNAMIC_AXES = {
    'images': {0: 'images', 2: 'height', 3: 'width'},
    'sizes': {0: 'images'},
    **{name: {0: 'detections'} for name in OUTPUTS[:3]},
    'mask_logits': {0: 'detections', 1: 'mask_height', 2: 'mask_width'},
}


@dataclass(frozen=True)
class Differences:
    """Differences of an exported model from the one that it comes from, over some images.

    Attributes:
        images: How many were compared.
        detections: What the model found on them.
        unmatched: Detections that only one of both has: another number on an image, or no partner near by.
        score: The largest difference of a probability.
        box: The largest difference of a coordinate, pixels.
        mask: The largest part of a mask's pixels, of those in either mask, that only one of both has.
        names: Detections of another name.
    """

    images: int
    detections: int
    unmatched: int
    score: float
    box: float
    mask: float
    names: int

    def __str__(self) -> str:
        return (
            f'{self.images} images, {self.detections} detections: {self.unmatched} without a partner, {self.names} '
            f'of another name; largest differences: probability {self.score:.1e}, box {self.box:.1e} pixels, '
            f'mask {100 * self.mask:.2f} % of its pixels'
        )

    @property
    def tolerable(self) -> bool:
        """Whether these are differences of rounding."""
        exact = not self.unmatched and not self.names
        return exact and self.score <= SCORE_TOLERANCE and self.box <= BOX_TOLERANCE


def export(
    config: str | Path,
    checkpoint: str,
    out: str | Path,
    *,
    int8: str | Path | None = None,
    images: Sequence[str | Path] | None = None,
    samples: int = 8,
    calibration: int = 64,
    options: Mapping[str, Any] | None = None,
) -> dict[Path, Differences]:
    """Writes a trained model of the RTMDet family as an ONNX file.

    Both models run on sample images before the file takes its name; there is none where they disagree.

    Args:
        config: The config file.
        checkpoint: The weights.
        out: The file.
        int8: Folder of images, or glob, by which a second file ``<out>.int8.onnx`` is quantised to whole numbers of
            8 bits: the convolutions, not what follows.
        images: Sample images; the first of the config's test data when omitted.
        samples: How many of those.
        calibration: The most images of ``int8`` that are read.
        options: Values by dotted key that override the config's.

    Returns:
        The files, and how each differs from the model on the samples. No bound holds for INT8.

    Raises:
        ConfigError: A file does not exist, the model is of another family, its test pipeline has steps that an export
            does not know, or both models disagree beyond rounding.
        OutputError: The file cannot be written, or another run writes it.
    """
    out = Path(out)
    if out.suffix != '.onnx':
        raise ConfigError('an exported model is an ONNX file', where=str(out), fix='Name it .onnx.')
    output_file(out)
    trained = TrainedModel(config, checkpoint, device='cpu', options=options)
    settled = trained.config
    require_exportable(trained.detector)
    paths = [str(path) for path in images] if images else [path for _, path in islice(tested_images(settled), samples)]
    written: dict[Path, Differences] = {}
    with locked_file(out), TemporaryDirectory() as folder, disk_faults(folder, only_full=True):
        exact = Path(folder) / 'exact.onnx'
        write_graph(trained.detector, settled, exact, sample=paths[0])
        pictures = [load_picture(settled, path) for path in paths]
        expected = [trained([picture])[0] for picture in pictures]
        written[out] = compare_found(expected, open_exported(exact)(pictures))
        if not written[out].tolerable:
            raise ConfigError(
                f'the exported model disagrees with the trained one: {written[out]}',
                where=str(out),
                fix=f'Rounding explains {SCORE_TOLERANCE:g} and {BOX_TOLERANCE:g} pixels. Probabilities that '
                'tie have no order, so that a model without training may fail; else report this.',
            )
        contents = {out: exact.read_bytes()}
        if int8:
            small = Path(folder) / 'int8.onnx'
            quantise(exact, small, images_in(int8)[:calibration], settled)
            beside = out.with_suffix('.int8.onnx')
            written[beside] = compare_found(expected, open_exported(small)(pictures))
            contents[beside] = small.read_bytes()
        for path, content in contents.items():
            write_atomically(sealed(content), path)
    return written


def require_exportable(model: nn.Module) -> None:
    """Refuses models that no graph holds.

    Raises:
        ConfigError: The model is no RTMDet with hierseg's head.
    """
    head = getattr(model, 'bbox_head', None)
    if not isinstance(head, HierarchicalRTMDetInsHead):
        raise ConfigError(
            f'{type(model).__name__} has no export: only the RTMDet family has; boxes and masks of two-stage models '
            'and ensembles come from regions that are found on the way',
            fix='Export a real-time model, such as that of configs/hier_rtmdet_s.py.',
        )


def write_graph(model: nn.Module, config: Config, path: Path, *, sample: str) -> None:
    """Traces a model with a sample image and writes it with its metadata."""
    settings = settings_of(model, config)
    preprocessor = model.data_preprocessor
    graph = OnnxGraph(
        model, mean=preprocessor.mean, std=preprocessor.std, reverse=not preprocessor._channel_conversion
    ).eval()
    picture = load_picture(config, sample)
    height, width = fitted_size(picture.shape[0], picture.shape[1], settings['input_size'])
    divisor = settings['size_divisor']
    shape = [-(-side // divisor) * divisor for side in (height, width)]
    inputs = (torch.rand(2, 3, *shape) * 255, torch.tensor([[height, width]] * 2, dtype=torch.float32))
    torch.onnx.register_custom_op_symbolic(OPERATOR, suppress_in_onnx, OPSET)
    try:
        # The exporter by tracing: it needs no package beside torch. It warns that it is the older one, and of
        # every number that it takes for constant: strides and channels.
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            torch.onnx.export(
                graph,
                inputs,
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=['images', 'sizes'],
                output_names=list(OUTPUTS),
                dynamic_axes=DYNAMIC_AXES,
            )
    finally:
        torch.onnx.unregister_custom_op_symbolic(OPERATOR, OPSET)
    document = onnx.load(path)
    onnx.helper.set_model_props(
        document, {f'{PREFIX}{name}': json.dumps(value, ensure_ascii=False) for name, value in settings.items()}
    )
    onnx.checker.check_model(document)
    onnx.save(document, path)


def settings_of(model: nn.Module, config: Config) -> dict[str, Any]:
    """All that a program must know beside the graph, for the metadata; docs/export.md explains each.

    Raises:
        ConfigError: The test pipeline has a step that is not known here, or does not keep the ratio of sides.
    """
    steps = [step for step in get_test_pipeline_cfg(config) if step['type'] != 'LoadAnnotations']
    kinds = [step['type'] for step in steps]
    if kinds[:2] != ['LoadImageFromFile', 'Resize'] or len(kinds) != 3 or not steps[1].get('keep_ratio'):
        raise ConfigError(
            f'the test pipeline has the steps {", ".join(map(str, kinds))}',
            where=config.filename,
            fix='An export knows LoadImageFromFile, Resize with keep_ratio=True and PackDetInputs; padding is the '
            "data preprocessor's.",
        )
    preprocessor, head = model.data_preprocessor, model.bbox_head
    order = slice(None) if preprocessor._channel_conversion else slice(None, None, -1)
    mean, std = (table.flatten().tolist()[order] for table in (preprocessor.mean, preprocessor.std))
    decision = head.detections.decision
    scale = steps[1]['scale']
    return {
        'version': VERSION,
        'made_with': {'hierseg': __version__, **{name: version(name) for name in ('onedl-mmdetection', 'torch')}},
        'taxonomy': head.loss_cls.taxonomy.to_json(),
        'decision': {'rule': decision.rule, 'threshold': decision.threshold, 'relative': decision.relative},
        'score_threshold': float(head.test_cfg.score_thr),
        'iou_threshold': float(head.test_cfg.nms.iou_threshold),
        'max_detections': int(head.test_cfg.max_per_img),
        'input_size': [max(scale), min(scale)],
        'size_divisor': preprocessor.pad_size_divisor,
        'colour_order': 'RGB',
        'mean': mean,
        'std': std,
        # What the network sees as nothing: the preprocessor pads with zeros after it has taken off the mean.
        'padding': mean,
        'mask_stride': head.prior_generator.strides[0][0],
        'mask_threshold': float(head.test_cfg.mask_thr_binary),
    }


def quantise(exact: Path, small: Path, paths: Sequence[str], config: Config) -> None:
    """Writes a model whose convolutions compute in INT8, with ranges seen on some images."""
    model = open_exported(exact)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.inputs = (model.inputs([load_picture(config, path)])[0] for path in paths)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.inputs, None)

    quantize_static(
        exact,
        small,
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=['Conv'],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def images_in(pattern: str | Path) -> list[str]:
    """Files of a folder or glob, in the order of their names.

    Raises:
        ConfigError: There are none.
    """
    pattern = str(Path(pattern) / '*') if Path(pattern).is_dir() else str(pattern)
    paths = [path for path in sorted(glob.glob(pattern, recursive=True)) if Path(path).is_file()]
    if not paths:
        raise ConfigError('there are no images', where=pattern, fix='Name a folder of images or a glob.')
    return paths


def load_picture(config: Config, path: str) -> np.ndarray:
    """An image file as the config's test pipeline reads it, (H, W, 3) uint8 RGB."""
    loaded = Compose(get_test_pipeline_cfg(config)[:1])({'img_path': path})['img']
    return np.ascontiguousarray(loaded[:, :, ::-1])


def compare_found(expected: Sequence[Found], found: Sequence[Found]) -> Differences:
    """Compares what two models found on the same images; detections are partners that are each other's nearest."""
    unmatched = names = 0
    largest = {'score': 0.0, 'box': 0.0, 'mask': 0.0}
    for one, other in zip(expected, found, strict=True):
        rows, partners = partners_of(one, other)
        unmatched += len(one) + len(other) - 2 * len(rows)
        one, other = one[rows], other[partners]
        names += int((one.labels != other.labels).sum())
        differences = {
            'score': np.abs(one.class_scores - other.class_scores),
            'box': np.abs(one.boxes - other.boxes),
            'mask': np.array([mask_difference(*masks) for masks in zip(_masks(one), _masks(other), strict=True)]),
        }
        largest = {name: max(most, float(differences[name].max(initial=0))) for name, most in largest.items()}
    return Differences(len(expected), sum(map(len, expected)), unmatched, names=names, **largest)


def partners_of(one: Found, other: Found) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both that overlap by half or more and are each other's nearest, by box and probabilities."""
    overlaps = bbox_overlaps(one.boxes.astype(np.float32), other.boxes.astype(np.float32))
    apart = 1 - overlaps + np.abs(one.class_scores[:, None] - other.class_scores).max(axis=2, initial=0)
    if not apart.size:
        return np.zeros((2, 0), dtype=np.int64)
    rows, partners = np.arange(len(one)), apart.argmin(axis=1)
    mutual = (apart.argmin(axis=0)[partners] == rows) & (overlaps[rows, partners] >= 0.5)
    return rows[mutual], partners[mutual]


def mask_difference(one: np.ndarray, other: np.ndarray) -> float:
    """Part of the pixels in either mask that only one has; 0 where both are empty."""
    return float((one ^ other).sum() / max((one | other).sum(), 1))


def _masks(found: Found) -> list[np.ndarray]:
    return [instance.mask for instance in found]
