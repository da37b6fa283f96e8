"""A real-time model as one function of tensors that ONNX can hold: pictures in, detections and mask logits out.

What the model does image by image and with lists of pairs is done here in batches and with tables, since a traced graph
has no loops; ``hierseg.apis.export`` runs both and compares.

Shape letters: B images, N points of an image, C classes, R root classes, G logits of a point, K candidates of an image,
M detections of all images.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from mmcv.ops import nms
from torch import Tensor, nn

from hierseg.errors import ConfigError
from hierseg.functional import SCHEMES, sigmoid_losses, softmax_losses
from hierseg.functional.relations import Relations, sums_above, sums_below

OPERATOR = 'hierseg::suppress'
DIVISOR = 8  # of the distance from a point to a pixel, in strides, as mmdet's dynamic convolutions see it


@torch.library.custom_op(OPERATOR, mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    """ONNX's NonMaxSuppression: (S, 3) int64 image, class and box of what survives among the boxes of its class.

    Args:
        boxes: (B, K, 4) xyxy.
        scores: (B, R, K).
        iou_threshold: Boxes that overlap a better one by more are suppressed.
        score_threshold: Scores at or below it do not take part.
    """
    kept = [torch.zeros(0, 3, dtype=torch.int64)]
    for image, of_image in enumerate(scores):
        for root, of_root in enumerate(of_image):
            rows = (of_root > score_threshold).nonzero().squeeze(1)
            if len(rows):
                rows = rows[nms(boxes[image, rows], of_root[rows], iou_threshold)[1]]
            kept.append(torch.stack([torch.full_like(rows, image), torch.full_like(rows, root), rows], dim=1))
    return torch.cat(kept)


def suppress_in_onnx(graph: Any, boxes: Any, scores: Any, iou_threshold: Any, score_threshold: Any) -> Any:
    """The operator's node."""
    thresholds = [value.node().t('value').float().reshape(1) for value in (iou_threshold, score_threshold)]
    most = torch.tensor([torch.iinfo(torch.int32).max])  # as many as there are
    numbers = [graph.op('Constant', value_t=number) for number in (most, *thresholds)]
    return graph.op('NonMaxSuppression', boxes, scores, *numbers)


class OnnxGraph(nn.Module):
    """The graph of a real-time model in evaluation mode, which it leaves as it is.

    Args:
        model: Of mmdet's RTMDet with hierseg's head.
        mean: Of the three channels, in the order in which the network takes them.
        std: Likewise.
        reverse: Whether that order is BGR.

    Raises:
        ConfigError: The suppression is not the plain one.
    """

    def __init__(self, model: nn.Module, *, mean: Tensor, std: Tensor, reverse: bool) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.head = self.model.bbox_head
        loss = self.head.loss_cls
        scheme, relations = SCHEMES[loss.scheme], loss.relations_on(torch.device('cpu'))
        test_cfg = self.head.test_cfg
        if test_cfg.nms.get('type', 'nms') != 'nms' or set(test_cfg.nms) - {'type', 'iou_threshold', 'class_agnostic'}:
            raise ConfigError(
                f'nms={dict(test_cfg.nms)}',
                where='test_cfg',
                fix="Export with nms=dict(type='nms', iou_threshold=...).",
            )
        self.iou_threshold, self.score_threshold = float(test_cfg.nms.iou_threshold), float(test_cfg.score_thr)
        self.num_candidates, self.num_detections = int(test_cfg.nms_pre), int(test_cfg.max_per_img)
        self.reverse = reverse
        for name, table in (('mean', mean), ('std', std)):
            self.register_buffer(name, table.reshape(1, 3, 1, 1))
        for convolution in self.head.rtm_cls:
            fold_scores(convolution, scheme.scores, relations)
        self.probabilities = ClassProbabilities(scheme.probabilities, relations)
        self.root_probabilities = ClassProbabilities(scheme.probabilities, relations, columns=relations.root_classes)
        # [r, v]: class v is at or below root class r.
        below = torch.zeros(len(relations.root_classes), relations.num_classes)
        classes, roots = relations.root_pairs
        below[roots, classes] = 1
        self.register_buffer('below_root', below)

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Detections, image by image, the best of each first.

        Args:
            images: (B, 3, H, W) RGB from 0 to 255, H and W multiples of 32.
            sizes: (B, 2) height and width of the picture in each, which lies at the top left.

        Returns:
            (M,) int64 position of the image, (M, 4) boxes, xyxy pixels of ``images``, (M, C) probability of every class
            that a detection claims and zero for the others, (M, h, w) logits of the masks, at the finest stride.
        """
        pixels = ((images.flip(1) if self.reverse else images) - self.mean) / self.std
        logits, distances, kernels, mask_features = self.head(self.model.extract_feat(pixels))
        points = self.points(logits)
        scores, edges, kernels = (_by_point(maps) for maps in (logits, distances, kernels))
        count = at_most(torch._shape_as_tensor(scores)[1], self.num_candidates)
        best = self.root_probabilities(scores).amax(dim=2).topk(count, dim=1).indices
        scores, edges, kernels = (_rows(values, best) for values in (scores, edges, kernels))
        points = points[best]

        centres = points[..., :2]
        boxes = torch.cat([centres - edges[..., :2], centres + edges[..., 2:]], dim=2).clamp(min=0)
        boxes = torch.minimum(boxes, sizes.flip(1).repeat(1, 2)[:, None])
        class_scores = self.claimed(boxes, self.probabilities(scores))
        score, order = class_scores.amax(dim=2).topk(at_most(count, self.num_detections), dim=1)
        image, rank = (score > 0).nonzero(as_tuple=True)
        row = order[image, rank]
        masks = self.mask_logits(mask_features, image, kernels[image, row], points[image, row])
        return image, boxes[image, row], class_scores[image, row], masks

    def points(self, maps: tuple[Tensor, ...]) -> Tensor:
        """(N, 3) x, y and stride of all points, of maps of all levels."""
        levels = []
        for level, (stride, _) in zip(maps, self.head.prior_generator.strides, strict=True):
            places = torch.ones_like(level[0, 0])
            grid = torch.stack([places.cumsum(1) - 1, places.cumsum(0) - 1, places]) * stride
            levels.append(grid.flatten(1).T)
        return torch.cat(levels)

    def claimed(self, boxes: Tensor, probabilities: Tensor) -> Tensor:
        """(B, K, C) probabilities, zero where a class claims nothing; see ``hierseg.models.detections``."""
        roots = probabilities[..., self.root_probabilities.columns]
        kept = suppress(boxes, roots.transpose(1, 2).contiguous(), self.iou_threshold, self.score_threshold)
        survives = torch.zeros_like(roots).index_put(
            (kept[:, 0], kept[:, 2], kept[:, 1]), torch.ones_like(kept[:, 0]).to(roots.dtype)
        )
        return probabilities * ((survives @ self.below_root > 0) & (probabilities > self.score_threshold))

    def mask_logits(self, features: Tensor, image: Tensor, kernels: Tensor, points: Tensor) -> Tensor:
        """(M, h, w) logits by each detection's own layers; see the head's ``mask_logits``, which is of one image."""
        stride = self.head.prior_generator.strides[0][0]
        places = torch.ones_like(features[:, :1])
        cells = torch.cat([places.cumsum(3) - 1, places.cumsum(2) - 1], dim=1) * stride
        values = torch.cat([cells, features], dim=1).flatten(2)[image]
        weights, biases = self.head.weight_nums, self.head.bias_nums
        parts = kernels.split([*weights, *biases], dim=1)
        weights, biases = (
            [part.unflatten(1, (size, part.shape[1] // size)) for part, size in zip(some, biases, strict=True)]
            for some in (parts[: len(weights)], parts[len(weights) :])
        )
        # As in the head: the place of the point is a bias of the first layer.
        toward = weights[0][:, :, :2] / (points[:, 2:, None] * DIVISOR)
        biases[0] = biases[0] + toward @ points[:, :2, None]
        weights[0] = torch.cat([-toward, weights[0][:, :, 2:]], dim=2)
        for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            values = weight @ (values.relu() if number else values) + bias
        return values.unflatten(2, (features.shape[2], features.shape[3])).squeeze(1)


class ClassProbabilities(nn.Module):
    """From the scores of a scheme to probabilities of classes, by a table instead of steps over pairs.

    Args:
        function: The scheme's, of ``hierseg.functional``.
        relations: Of the taxonomy.
        columns: (R,) Classes that are wanted; all when omitted.
    """

    def __init__(
        self,
        function: Callable[[Tensor, Relations], Tensor],
        relations: Relations,
        *,
        columns: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.function = function
        self.register_buffer('columns', torch.arange(relations.num_classes) if columns is None else columns)
        identity = torch.eye(relations.num_classes + 1)
        if function is softmax_losses.class_probabilities:
            table = sums_below(identity, relations)[:, self.columns]
        elif function is softmax_losses.path_product_probabilities:
            # One softmax for each group of siblings; the table takes their results one group after the other.
            members = relations.sibling_groups.argsort(stable=True)
            self.groups = members.split(relations.sibling_groups.bincount().tolist())
            table = sums_above(identity, relations)[members][:, self.columns]
        else:
            lists = relations.ancestors[:-1]
            if function is sigmoid_losses.max_below_probabilities:
                rows = [relations.below.members[s:e] for s, e in zip(*_bounds(relations), strict=True)]
                lists = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
            table = torch.where(lists < 0, torch.arange(relations.num_classes)[:, None], lists)[self.columns]
        self.register_buffer('table', table)

    def forward(self, scores: Tensor) -> Tensor:
        """(B, N, R) probabilities of (B, N, G) scores."""
        if self.function is softmax_losses.class_probabilities:
            return (scores.softmax(dim=2) @ self.table).clamp(0, 1)
        if self.function is softmax_losses.path_product_probabilities:
            steps = torch.cat([scores[:, :, group].log_softmax(dim=2) for group in self.groups], dim=2)
            return (steps @ self.table).exp()
        members = scores[:, :, self.table]
        lowest = self.function is sigmoid_losses.min_above_probabilities
        return (members.amin(dim=3) if lowest else members.amax(dim=3)).sigmoid()


def fold_scores(convolution: nn.Conv2d, scores: Callable[[Tensor, Relations], Tensor], relations: Relations) -> None:
    """Lets a convolution give a scheme's scores instead of logits: an affine function of them, sums over paths."""
    with torch.no_grad():
        bias = convolution.bias
        offset = scores(torch.zeros(1, len(bias)), relations)
        linear = scores(torch.eye(len(bias)), relations) - offset
        convolution.weight.copy_(torch.einsum('ij,i...->j...', linear, convolution.weight))
        convolution.bias.copy_(bias @ linear + offset[0])


def _bounds(relations: Relations) -> tuple[list[int], list[int]]:
    starts = relations.below.starts.tolist()
    return starts[:-2], starts[1:-1]


def _by_point(maps: tuple[Tensor, ...]) -> Tensor:
    """(B, N, channels) of maps of all levels."""
    return torch.cat([level.flatten(2) for level in maps], dim=2).transpose(1, 2)


def _rows(values: Tensor, rows: Tensor) -> Tensor:
    return values.gather(1, rows[:, :, None].expand(-1, -1, values.shape[2]))


def at_most(count: Tensor, most: int) -> Any:
    """A number that a traced graph computes, or a smaller most; below zero is none, as in the head."""
    return count if most < 0 else torch.where(count < most, count, torch.full_like(count, most))
