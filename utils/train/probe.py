"""Linear probes: how much of the classes can be read off features that are never changed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import nn

from .. import models
from ..data import ImageSet
from . import selfsup

PENALTY = 0.1  # scikit-learn's C, the inverse of the penalty on the weights; for all probes


def head_inputs(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """What each head of the model reads for uint8 images (N, 3, h, w): (N, D) float32, on the CPU.

    In eval mode; leaves the model's modes as they were.
    """
    heads = models.heads(model)
    read: list[list[torch.Tensor]] = [[] for _ in heads]

    def reader(k: int) -> Callable[[nn.Module, tuple], None]:
        return lambda _module, inputs: read[k].append(inputs[0].detach().float().cpu())

    hooks = [head.register_forward_pre_hook(reader(k)) for k, head in enumerate(heads)]
    try:
        models.logits_of(model, images)
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.cat(parts) for parts in read]


def frozen_features(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Features (N, D) before the head for uint8 images (N, 3, h, w), float32 on the CPU.

    A CNN gives what its head reads. A ViT gives its CLS token beside the mean of its patch tokens,
    both after the last norm (D is twice its width).
    """
    if not hasattr(model, "patch_embed"):
        return head_inputs(model, images)[0]

    def run(rows: slice, _: int) -> torch.Tensor:
        tokens = selfsup.encode(model, models.prepare(model, images[rows]))
        return torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1).float().cpu()

    with models.evaluating(model), torch.no_grad():
        return torch.cat(list(models.per_chunk(run, len(images), models.CHUNK)))


def fit_probe(
    features: torch.Tensor, labels: torch.Tensor, classes: int, strength: float = PENALTY
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logistic regression on features (N, D): weight (classes, D) and bias (classes,).

    Fitted on standardised features and written back for the features as they are. A class
    without an image has weight zero and the lowest bias.
    """
    middle, spread = features.mean(0), features.std(0) + 1e-6
    fitted = LogisticRegression(C=strength, max_iter=2000).fit(
        ((features - middle) / spread).numpy(), labels.numpy()
    )
    coefficients, intercept = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # scikit-learn keeps the difference of the two only
        coefficients, intercept = (np.concatenate([-a, a]) / 2 for a in (coefficients, intercept))
    present = torch.from_numpy(fitted.classes_).long()
    scaled = torch.from_numpy(coefficients).float() / spread
    shifted = torch.from_numpy(intercept).float() - scaled @ middle
    weight = torch.zeros(classes, features.shape[1])
    bias = torch.full((classes,), shifted.min().item())
    weight[present], bias[present] = scaled, shifted
    return weight, bias


def linear_probe(
    features: torch.Tensor,
    labels: torch.Tensor,
    test_features: torch.Tensor,
    test_labels: torch.Tensor,
    strength: float = PENALTY,
) -> float:
    """Test accuracy (0..1) of logistic regression on features (N, D); nothing is tuned."""
    classes = int(torch.cat([labels, test_labels]).max()) + 1
    preds = F.linear(test_features, *fit_probe(features, labels, classes, strength)).argmax(1)
    return (preds == test_labels).float().mean().item()


@torch.no_grad()
def start_head(model: nn.Module, train_set: ImageSet) -> None:
    """Set the head to a linear probe on `train_set`, in place; the rest stays as it is.

    Fine-tuning then starts from features and a head that fit each other, so that the first steps
    do not distort the features (Kumar et al. 2022, "Fine-tuning can distort pretrained features
    and underperform out-of-distribution").
    """
    inputs = head_inputs(model, train_set.images)
    for head, features in zip(models.heads(model), inputs, strict=True):
        weight, bias = fit_probe(features, train_set.labels, len(train_set.classes))
        head.weight.copy_(weight)
        head.bias.copy_(bias)
