"""Linear probes: what a linear classifier finds in features that nobody trains any more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from .. import models
from ..data import ImageSet


@torch.no_grad()
def head_inputs(model: nn.Module, images: torch.Tensor, chunk: int = 256) -> list[torch.Tensor]:
    """What each head of the model reads for uint8 images (N, 3, h, w): (N, D) float32, on the CPU.

    In eval mode; leaves the model's modes as they were.
    """
    heads = models.heads(model)
    read: list[list[torch.Tensor]] = [[] for _ in heads]

    def reader(k: int) -> Callable[[nn.Module, tuple], None]:
        return lambda _module, inputs: read[k].append(inputs[0].detach().float().cpu())

    hooks = [head.register_forward_pre_hook(reader(k)) for k, head in enumerate(heads)]
    try:
        with models.evaluating(model):
            for part in images.split(chunk):
                model(models.prepare(model, part))
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.cat(parts) for parts in read]


def linear_probe(
    features: torch.Tensor, labels: torch.Tensor, classes: int, strength: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logistic regression on features (N, D): weight (classes, D) and bias (classes,).

    Fitted on standardised features and written back for the features as they are. strength: the
    inverse of the L2 penalty. A class without an image is never predicted.
    """
    middle, spread = features.mean(0), features.std(0) + 1e-6
    fitted = LogisticRegression(C=strength, max_iter=2000).fit(
        ((features - middle) / spread).numpy(), labels.numpy()
    )
    coefficients, intercept = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # scikit-learn keeps the difference of the two only
        coefficients, intercept = (np.concatenate([-a, a]) / 2 for a in (coefficients, intercept))
    weight = torch.zeros(classes, features.shape[1])
    bias = torch.full((classes,), float(intercept.min()) - 10)
    present = torch.from_numpy(fitted.classes_).long()
    weight[present] = torch.from_numpy(coefficients).float() / spread
    bias[present] = torch.from_numpy(intercept).float() - weight[present] @ middle
    return weight, bias


@torch.no_grad()
def probe_head(model: nn.Module, train_set: ImageSet) -> None:
    """Set the head to a linear probe of the features that it reads, before anything is trained.

    Fine-tuning then starts from a head that knows the classes, and large first gradients do not
    distort the features (Kumar et al. 2022, "Fine-tuning can distort pretrained features").
    """
    inputs = head_inputs(model, train_set.images)
    for head, features in zip(models.heads(model), inputs, strict=True):
        weight, bias = linear_probe(features, train_set.labels, len(train_set.classes))
        head.weight.copy_(weight)
        head.bias.copy_(bias)
