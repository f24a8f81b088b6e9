"""Attention of timm Vision Transformers: the maps themselves, and their rollout.

timm computes attention in one fused step and never shows the maps. They are recomputed here
from the queries and keys that each block makes anyway, so the forward pass stays fused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import nn

Targets = int | torch.Tensor | None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, every module's own mode restored after; leaves torch.inference_mode."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode(False):
            yield
    finally:
        for module in training:
            module.training = True


def as_targets(targets: Targets, logits: torch.Tensor) -> torch.Tensor:
    """Classes to explain, int64 (B,): one for all, one each, or (None) the predicted ones.

    Raises ValueError if there are not B of them or one is no class of these logits (B, C).
    """
    n, classes = logits.shape
    if targets is None:
        return logits.argmax(1)
    chosen = torch.as_tensor(targets, dtype=torch.int64, device=logits.device)
    if chosen.shape not in ((), (n,)):
        raise ValueError(f"{chosen.numel()} targets for {n} images: give one class for all or one per image.")
    if ((chosen < 0) | (chosen >= classes)).any():
        raise ValueError(f"Target {chosen.tolist()} is not among the model's classes 0..{classes - 1}.")
    return chosen.expand(n)


def _attention_rows(attn: Attention, qkv: torch.Tensor, n: int | None) -> torch.Tensor:
    """First n rows (None: all) of softmax(q k^T / sqrt(d)): (B, T, 3D) -> (B, heads, n, T)."""
    q, k, _ = qkv.unflatten(-1, (3, attn.num_heads, attn.head_dim)).unbind(2)
    q, k = attn.q_norm(q[:, :n].transpose(1, 2)), attn.k_norm(k.transpose(1, 2))
    return (q * attn.scale @ k.transpose(-2, -1)).softmax(-1)


def maps(model: nn.Module, x: torch.Tensor, rows: str = "cls") -> torch.Tensor:
    """Attention after the softmax, of every block and head, from one forward pass.

    x: (B, 3, H, W), normalised, on the model's device. rows="cls" gives what the CLS token
    attends to, (B, L, heads, T), and never forms a T x T matrix; "all" gives
    (B, L, heads, T, T). Token 0 is CLS; each row sums to 1. No gradient is kept.
    Raises ValueError for other rows and for models that are not timm Vision Transformers with
    plain attention (and a CLS token, for its rows).
    """
    if rows not in ("cls", "all"):
        raise ValueError(f"There are no attention rows {rows!r}: use 'cls' or 'all'.")
    blocks = model.blocks if isinstance(model, VisionTransformer) else [model]
    if not all(isinstance(getattr(block, "attn", None), Attention) for block in blocks):
        raise ValueError(
            f"{type(model).__name__} has no plain attention to show: use a timm VisionTransformer."
        )
    if rows == "cls" and model.cls_token is None:
        raise ValueError("This Vision Transformer has no CLS token, so no CLS rows: ask for rows='all'.")

    found: list[torch.Tensor] = []
    hooks = [
        block.attn.qkv.register_forward_hook(
            lambda _, __, qkv, attn=block.attn: found.append(
                _attention_rows(attn, qkv, 1 if rows == "cls" else None)
            )
        )
        for block in blocks
    ]
    try:
        with evaluating(model), torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    stacked = torch.stack(found, 1)
    return stacked[..., 0, :] if rows == "cls" else stacked


def cls_row(matrices: torch.Tensor) -> torch.Tensor:
    """CLS row of M_L ... M_1 without the CLS column: (B, L, T, T) -> (B, T - 1).

    Only that row is carried along, so each block costs a vector-matrix product.
    """
    row = matrices[:, -1, :1]
    for layer in range(matrices.shape[1] - 2, -1, -1):
        row = row @ matrices[:, layer]
    return row[:, 0, 1:]


def rollout(attention: torch.Tensor) -> torch.Tensor:
    """Attention rollout (Abnar & Zuidema 2020, section 3): (B, L, heads, T, T) -> (B, patches).

    Mean over heads, plus the identity for the residual connection, rows normalised, and the
    product over blocks. Values are in 0..1; with the CLS column each row would sum to 1.
    """
    mean = attention.mean(2)
    mixed = mean + torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    return cls_row(mixed / mixed.sum(-1, keepdim=True))
