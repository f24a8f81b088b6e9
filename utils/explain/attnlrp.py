"""AttnLRP for timm Vision Transformers: signed relevance of each pixel from one backward pass.

Achtibat et al., "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers" (ICML
2024, arXiv 2402.05602). Its rules are those of LRP with epsilon, written as input times a gradient
that three changes to the backward pass make: a norm's standard deviation counts as a constant
(proposition 3.4), an activation f passes f(x) / x on in place of its slope (equation 9), and each
factor of a product gets half (proposition 3.3). Linear layers, sums and the softmax are
differentiated as they are (equation 8, proposition 3.1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.layers import RmsNorm
from timm.models.deit import VisionTransformerDistilled
from torch import nn

from ..models import Question, Targets, vit
from .replay import ANY, as_question, checked, in_float32
from .replay_vit import check_vit


def _norm(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The norm of x, its divisor a constant for the backward pass."""
    if isinstance(norm, nn.Identity):
        return x
    if isinstance(norm, RmsNorm):
        y = x * (x.pow(2).mean(-1, keepdim=True) + norm.eps).rsqrt().detach()
    elif isinstance(norm, nn.LayerNorm):
        variance = x.var(-1, correction=0, keepdim=True)
        y = (x - x.mean(-1, keepdim=True)) * (variance + norm.eps).rsqrt().detach()
    else:
        raise ValueError(f"AttnLRP has no rule for {type(norm).__name__}: use {ANY}.")
    y = y if norm.weight is None else y * norm.weight
    bias = getattr(norm, "bias", None)
    return y if bias is None else y + bias


def _activation(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """f(x), whose slope is f(x) / x: relevance goes through unchanged."""
    y = f(x).detach()
    return x * torch.where(x == 0, 0, y / x).detach()


def _half(x: torch.Tensor) -> torch.Tensor:
    """x, with half of its gradient."""
    return x / 2 + (x / 2).detach()


def _softmax(dots: torch.Tensor) -> torch.Tensor:
    """Differentiated as it is: what it gives for equal dots counts as a bias and keeps its share."""
    return dots.softmax(-1)


def _block(block: nn.Module, tokens: torch.Tensor, cp: bool) -> torch.Tensor:
    """Output (B, T, D) of one block, with the changed backward pass."""
    attn, mlp = block.attn, block.mlp
    qkv = attn.qkv(_norm(block.norm1, tokens))
    q, k, v = qkv.unflatten(-1, (3, attn.num_heads, attn.head_dim)).permute(2, 0, 3, 1, 4)
    q, k = _norm(attn.q_norm, q), _norm(attn.k_norm, k)
    if cp:  # attention is a constant, and all relevance goes to the values
        mixed = (q * attn.scale @ k.transpose(-2, -1)).softmax(-1).detach() @ v
    else:
        weights = _softmax(_half(q) * attn.scale @ _half(k).transpose(-2, -1))
        mixed = _half(weights) @ _half(v)
    joined = _norm(attn.norm, mixed.transpose(1, 2).flatten(2))
    tokens = tokens + block.ls1(attn.proj(joined))
    hidden = _activation(mlp.act, mlp.fc1(_norm(block.norm2, tokens)))
    return tokens + block.ls2(mlp.fc2(_norm(mlp.norm, hidden)))


def frozen_read_out(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """The last block's tokens (B, T, D) -> logits (B, C); linear for the backward pass."""
    tokens = _norm(model.norm, tokens)
    if isinstance(model, VisionTransformerDistilled):
        return (model.head(tokens[:, 0]) + model.head_dist(tokens[:, 1])) / 2
    return model.head(_norm(model.fc_norm, tokens[:, vit.tokens(model).read].mean(1)))


def _logits(model: nn.Module, x: torch.Tensor, cp: bool) -> torch.Tensor:
    """The model's logits (B, C), with the changed backward pass."""
    tokens = _norm(model.norm_pre, model._pos_embed(model.patch_embed(x)))
    for block in model.blocks:
        tokens = _block(block, tokens, cp)
    return frozen_read_out(model, tokens)


def relevance(
    model: nn.Module, x: torch.Tensor, question: Question | Targets = None, cp: bool = False
) -> torch.Tensor:
    """Relevance of each input value for the score in question: (B, 3, H, W) -> (B, 3, H, W).

    x: normalised, on the model's device. Relevance starts with the logit itself, or with the
    difference of two. What biases, position embeddings and the class token contributed stays
    with them, and so does what the softmax gives without looking at its input. cp: the variant
    of Ali et al. (2022, "XAI for Transformers"), in which attention weights are constants and
    relevance flows through the values only: without biases its map sums to the score. Computed in 32 bits at least; leaves no gradient behind. Raises
    ValueError as lrp.relevance() does.
    """
    check_vit(model)
    with in_float32(model, x) as (model, x), torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = _logits(model, x, cp)
        checked(model, x.detach(), logits.detach())
        score = as_question(question).score(logits).sum()
        (gradient,) = torch.autograd.grad(score, x)
        return (x * gradient).detach()


def attnlrp(
    model: nn.Module, x: torch.Tensor, question: Question, *, batch: int = 0, cp: bool = False
) -> torch.Tensor:
    """relevance() summed over the channels: (b, 3, H, W) -> (b, H, W), signed, in logits.

    batch is there for the methods' common form: no copies are made.
    """
    return relevance(model, x, question, cp).sum(1)
