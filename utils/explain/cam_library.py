"""The CAM family of pytorch-grad-cam: its classes on our activations and gradients."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import FinerWeightedTarget
from torch import nn

from ..models import Question
from .cams import Score, activation_and_slopes, layer_of


def _finer(question: Question, comparisons: int, alpha: float) -> Score:
    """FinerCAM's score: the target's logit against its most similar classes, or the one given."""

    def score(logits: torch.Tensor) -> torch.Tensor:
        weights = question.weights(logits.detach())
        scores = []
        for row, weight in zip(logits, weights, strict=True):
            target = int(weight.argmax())
            others = [int(weight.argmin())] if question.against is not None else None
            if others is None:
                distance = (row.detach() - row[target].detach()).abs()
                others = [c for c in distance.argsort().tolist() if c != target][:comparisons]
            scores.append(
                FinerWeightedTarget(target, others, alpha)(row) if others else row[target]
            )
        return torch.stack(scores)

    return score


def _each(question: Question, logits: torch.Tensor) -> list[Score]:
    """The question as pytorch-grad-cam wants it: for each image a function of its logits (C,)."""
    weights = question.weights(logits)

    def weighted(weight: torch.Tensor) -> Score:
        return lambda row: torch.where(weight == 0, 0, row * weight).sum()

    return [weighted(weight) for weight in weights]


def library(
    model: nn.Module,
    x: torch.Tensor,
    question: Question,
    *,
    batch: int,
    cam: str,
    layer: str | None,
    gradient: bool = True,
    comparisons: int = 3,
    alpha: float = 1.0,
) -> torch.Tensor:
    """pytorch-grad-cam's class `cam` on our activations and gradients; its positive part.

    Neither the model's parameters nor their gradients are touched, as the library's own forward
    would. FinerCAM is the library's Grad-CAM of its FinerWeightedTarget.
    """
    score = None
    if gradient:
        score = _finer(question, comparisons, alpha) if cam == "FinerCAM" else question.score
    activation, slopes = activation_and_slopes(model, x, layer, score)
    _, module = layer_of(model, layer)
    peer = getattr(pytorch_grad_cam, "GradCAM" if cam == "FinerCAM" else cam)(model, [module])
    peer.activations_and_grads.release()  # its hooks: what they would keep is handed over
    peer.batch_size = batch
    targets = None
    if cam in ("ScoreCAM", "AblationCAM"):
        with torch.no_grad():
            targets = _each(question, model(x))
    arrays = [None if t is None else t.cpu().numpy() for t in (activation, slopes)]
    before = dict(_parents(model, module))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar for every image
            heat = peer.get_cam_image(x, module, targets, *arrays, eigen_smooth=False)
    finally:
        for (parent, key), part in before.items():  # AblationCAM puts its own layer there
            parent._modules[key] = part
    return torch.from_numpy(np.float32(heat)).relu()


def _parents(model: nn.Module, module: nn.Module) -> list[tuple[tuple[nn.Module, str], nn.Module]]:
    """Every place where the module hangs in the model."""
    return [
        ((parent, key), part)
        for parent in model.modules()
        for key, part in parent.named_children()
        if part is module
    ]
