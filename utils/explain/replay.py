"""For methods that replay a model's forward pass step by step, to hand relevance back along it.

A replay is only as good as its likeness to the model: checked() compares their logits on the very
images that are explained. And its quotients need more digits than 16 bits hold: in_float32().
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..models import Question, Targets, evaluating

LOW = (torch.float16, torch.bfloat16)
ANY = "gradcam, integrated_gradients, occlusion or shapley"  # run the model itself, whatever it is
TOLERANCE = {torch.float64: 1e-6, torch.float32: 5e-3}  # of the largest logit
ON_GPU = 6  # times that: convolutions there keep 10 bits (TF32) unless told otherwise


def as_question(question: Question | Targets) -> Question:
    """A Question as it is; a class, classes or None as the question about them."""
    return question if isinstance(question, Question) else Question(question)


@contextmanager
def in_float32(model: nn.Module, x: torch.Tensor) -> Iterator[tuple[nn.Module, torch.Tensor]]:
    """The model and its input for computing in 32 bits or more: eval mode, autocast off.

    A model in float16 or bfloat16 stays as it is; what is given is a 32-bit copy of its rounded
    weights.
    """
    if any(p.dtype in LOW for p in model.parameters()):
        model = copy.deepcopy(model).float()
    if x.dtype in LOW:
        x = x.float()
    with evaluating(model), torch.autocast(x.device.type, enabled=False):
        yield model, x


@torch.no_grad()
def checked(model: nn.Module, x: torch.Tensor, logits: torch.Tensor) -> None:
    """ValueError unless the model itself gives these replayed logits (B, C) for x, up to rounding."""
    own = model(x)
    error = (own - logits).abs().max().item() if own.shape == logits.shape else float("inf")
    tolerance = TOLERANCE[logits.dtype] * (ON_GPU if own.is_cuda else 1)
    if not error <= tolerance * own.abs().max().item():
        raise ValueError(
            f"The forward pass of this {type(model).__name__} is not the standard one of its class "
            f"(replayed step by step, its logits are off by {error:.2g}), so there is no relevance "
            f"to hand back along it: use {ANY}."
        )
