"""Methods that speak of a ViT's patches, as maps on its grid: (b, rows, columns).

explain() runs these. What they do is in attention and lrp; relevance() serves CNNs as well.
"""

from __future__ import annotations

import torch
from torch import nn

from ..models import Question, kind, vit
from . import attention, lrp


def relevance(
    model: nn.Module, x: torch.Tensor, question: Question, *, batch: int, start_layer: int
) -> torch.Tensor:
    if kind(model) == "vit":
        heat = lrp.transformer_attribution(model, x, question, start_layer)
        return heat.unflatten(1, model.patch_embed.grid_size)
    if start_layer:
        raise ValueError(
            "LRP's start_layer is for Vision Transformers only: leave it at 0 for a CNN."
        )
    return lrp.resnet_relevance(model, x, question).sum(1)


def rollout(model: nn.Module, x: torch.Tensor, question: Question, *, batch: int) -> torch.Tensor:
    """The same for every question: rollout does not look at the class."""
    heat = attention.rollout(attention.maps(model, x, rows="all"), vit.tokens(model))
    return heat.unflatten(1, model.patch_embed.grid_size)


def gradient_rollout(
    model: nn.Module, x: torch.Tensor, question: Question, *, batch: int
) -> torch.Tensor:
    heat = attention.gradient_rollout(model, x, question)
    return heat.unflatten(1, model.patch_embed.grid_size)


def raw_attention(
    model: nn.Module,
    x: torch.Tensor,
    question: Question,
    *,
    batch: int,
    block: int,
    head: int | None,
) -> torch.Tensor:
    """What the CLS token attends to in one block: one head, or (None) their mean.

    The same for every question.
    """
    rows = attention.maps(model, x)
    depth, heads = rows.shape[1:3]
    if not -depth <= block < depth or (head is not None and not 0 <= head < heads):
        raise ValueError(
            f"There is no head {head} in block {block}: "
            f"blocks are 0..{depth - 1}, heads 0..{heads - 1}."
        )
    rows = rows[:, block].mean(1) if head is None else rows[:, block, head]
    return rows[:, model.num_prefix_tokens :].unflatten(1, model.patch_embed.grid_size)
