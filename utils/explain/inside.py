"""Inside a timm Vision Transformer: what each part adds to the score, and what it would say earlier.

Each block adds two things to the tokens that pass by: what its heads read and what its MLP makes
of it. So the last tokens are a sum, and with the final norm's divisor taken as a constant (it is
nearly the same whatever one part does) the score is a sum too, over all heads and all MLPs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from timm.layers import LayerScale
from torch import nn

from ..models import Question, Targets, vit
from .attnlrp import frozen_read_out
from .replay import as_question, checked, in_float32
from .replay_vit import block_forward, check_vit, read_out


@dataclass(frozen=True)
class Contributions:
    """What each part of the model writes directly into the score; all parts add up to it."""

    embedding: torch.Tensor  # (B,) the tokens before the first block
    heads: torch.Tensor  # (B, L, heads)
    mlps: torch.Tensor  # (B, L) with their biases
    biases: torch.Tensor  # (B,) of the attention's projections, the final norm and the head
    score: torch.Tensor  # (B,) the logit in question, or the difference of two


def _start(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model.norm_pre(model._pos_embed(model.patch_embed(x)))


def _walk(model: nn.Module, x: torch.Tensor) -> Iterator[tuple[torch.Tensor, tuple]]:
    """Tokens (B, T, D) after each block, and what block_forward() saw inside it."""
    tokens = _start(model, x)
    for block in model.blocks:
        tokens, saved = block_forward(block, tokens)
        yield tokens, saved


def contributions(
    model: nn.Module, x: torch.Tensor, question: Question | Targets = None
) -> Contributions:
    """What each head and MLP adds to the score (Elhage et al. 2021 call it direct logit attribution).

    x: (B, 3, H, W), normalised, on the model's device. A head's part is what it writes into the
    tokens that the classifier reads; what later blocks make of it counts as theirs. The final
    norm's standard deviation is a constant. Raises ValueError as lrp.relevance() does.
    """
    check_vit(model)
    question = as_question(question)
    with in_float32(model, x) as (model, x), torch.no_grad():
        read, parts = vit.tokens(model).read, []
        for after, saved in _walk(model, x):
            tokens, joined, attended, added = after, saved[7], saved[9], saved[15]
            parts.append([t[:, read] for t in (joined, attended, added)])
        with torch.enable_grad():
            tokens = tokens.detach().requires_grad_()
            logits = frozen_read_out(model, tokens)
            score = question.score(logits)
            (direction,) = torch.autograd.grad(score.sum(), tokens)
        checked(model, x, logits.detach())
        direction = direction[:, read]  # (B, read tokens, D): the score per unit of each token
        heads, mlps = [], []
        for block, (joined, _, added) in zip(model.blocks, parts, strict=True):
            scale = block.ls1.gamma if isinstance(block.ls1, LayerScale) else 1
            pulled = joined * ((direction * scale) @ block.attn.proj.weight)
            heads.append(pulled.sum(1).unflatten(-1, (block.attn.num_heads, -1)).sum(-1))
            mlps.append((direction * added).sum((1, 2)))
        embedding = (direction * _start(model, x)[:, read]).sum((1, 2))
        attended = sum((direction * part[1]).sum((1, 2)) for part in parts)
        stream = (direction * tokens[:, read]).sum((1, 2))
        biases = score - stream + attended - torch.stack(heads, 1).sum((1, 2))
    return Contributions(
        embedding, torch.stack(heads, 1), torch.stack(mlps, 1), biases.detach(), score.detach()
    )


def logit_lens(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Logits (B, L, C) that the final norm and the head give after each block.

    The last block's are the model's own (nostalgebraist 2020; the classifier was trained on
    those only). Raises ValueError as lrp.relevance() does.
    """
    check_vit(model)
    with in_float32(model, x) as (model, x), torch.no_grad():
        logits = [read_out(model, model.norm(tokens))[2] for tokens, _ in _walk(model, x)]
        checked(model, x, logits[-1])
    return torch.stack(logits, 1)


def patch_norms(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Length of each patch token after each block, (B, L, patches).

    A few patches of large models get far longer ones than the rest, in places that show nothing:
    the model keeps notes there, and register tokens take them over (Darcet et al. 2024). Raises
    ValueError as lrp.relevance() does.
    """
    check_vit(model)
    prefix = model.num_prefix_tokens
    with in_float32(model, x) as (model, x), torch.no_grad():
        norms = [tokens[:, prefix:].norm(dim=-1) for tokens, _ in _walk(model, x)]
    return torch.stack(norms, 1)


def outliers(norms: torch.Tensor, factor: float = 3.0) -> torch.Tensor:
    """Which tokens are longer than `factor` times their image's median: (..., patches) -> bool."""
    return norms > factor * norms.median(-1, keepdim=True).values
