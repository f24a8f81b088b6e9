"""Attention of timm Vision Transformers: the maps, what they say of a head, and their rollouts.

timm computes attention in one fused step and never shows the maps. They are recomputed here
from the queries and keys that each block makes anyway, so the forward pass stays fused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from timm.layers.attention import Attention
from torch import nn

from ..models import Question, Targets, evaluating, per_chunk, prepare, vit
from .replay import ANY, LOW, as_question

# ---------------------------------------------------------------- the maps


OWN_WAY = f"{{}} does not go timm's way, so the maps cannot be known: use {ANY}."


def _rows(attn: Attention, qkv: torch.Tensor, read: slice) -> torch.Tensor:
    """The rows `read` of softmax(q k^T / sqrt(d)): (B, T, 3D) -> (B, heads, rows, T)."""
    q, k, _ = qkv.unflatten(-1, (3, attn.num_heads, attn.head_dim)).unbind(2)
    q, k = attn.q_norm(q[:, read].transpose(1, 2)), attn.k_norm(k.transpose(1, 2))
    return (q * attn.scale @ k.transpose(-2, -1)).softmax(-1)


class _Watch:
    """Recomputes one attention module's rows, and checks that the model multiplied with the first."""

    def __init__(self, attn: Attention, read: slice) -> None:
        self.attn, self.first, self.read = attn, read.start or 0, read
        self.agrees = False
        self.hooks = [
            attn.qkv.register_forward_hook(self.recompute),
            attn.norm.register_forward_pre_hook(self.check),
        ]

    def recompute(self, _: nn.Module, __: tuple, qkv: torch.Tensor) -> None:
        attn = self.attn
        self.rows = _rows(attn, qkv, self.read)
        v = qkv.unflatten(-1, (3, attn.num_heads, attn.head_dim))[:, :, 2].transpose(1, 2)
        self.mixed = (self.rows[:, :, :1] @ v).transpose(1, 2).flatten(2)[:, 0]  # (B, D)

    def check(self, _: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        own, ours = given[0][:, self.first], self.mixed
        close = 0.05 if own.dtype in LOW or own.is_cuda else 5e-3
        self.agrees = (own - ours).abs().max().item() <= close * own.abs().max().item()


def maps(model: nn.Module, x: torch.Tensor, rows: str = "cls") -> torch.Tensor:
    """Attention after the softmax, of every block and head, from one forward pass.

    x: (B, 3, H, W), normalised, on the model's device. rows="cls" gives what the token that the
    head reads attends to, (B, L, heads, T): the CLS token, which never needs a T x T matrix. A
    distilled DeiT reads two tokens and an average-pooled model all patches: theirs is the mean of
    the rows, and row_name() says so. "all" gives (B, L, heads, T, T). The special tokens come
    first, CLS as token 0; each row sums to 1. No gradient is kept. Raises ValueError for other
    rows, for models that are not timm ViTs with plain attention or whose attention is not what
    timm's would be, and for rows="cls" where the head pools by maximum or attention.
    """
    if rows not in ("cls", "all"):
        raise ValueError(f"There are no attention rows {rows!r}: use 'cls' or 'all'.")
    blocks = vit.blocks(model)
    read = vit.tokens(model).read if rows == "cls" else slice(None)
    watches = [_Watch(block.attn, read) for block in blocks]
    try:
        with evaluating(model), torch.no_grad():
            model(x)
    finally:
        for hook in (hook for watch in watches for hook in watch.hooks):
            hook.remove()
    for i, watch in enumerate(watches):
        if not watch.agrees:
            raise ValueError(OWN_WAY.format(f"The attention of block {i}"))
    return torch.stack([w.rows.mean(2) if rows == "cls" else w.rows for w in watches], 1)


def row_name(model: nn.Module) -> str:
    """What maps(rows="cls") shows of this model, for titles: "CLS token" where there is one to read."""
    return vit.tokens(model).row


def collect(
    model: nn.Module,
    images: torch.Tensor,
    rows: str = "cls",
    chunk: int = 32,
    keep: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """maps() of many images, uint8 (N, 3, h, w), `chunk` at a time: (N, L, heads, T) on the CPU.

    Only the result is kept, in 32-bit numbers and allocated once: 284 MB for 2,500 images of a
    ViT-B/16. keep: what to make of each chunk's maps before they are dropped, such as
    entropy or, of all rows, rollout; the result is then (N, ...) of that. Raises as maps() does.
    """
    if not len(images):
        raise ValueError("collect needs an image, and there is none.")
    result = None

    def some(part: slice, _: int) -> torch.Tensor:
        taken = maps(model, prepare(model, images[part]), rows)
        return taken if keep is None else keep(taken)

    start = 0
    for made in per_chunk(some, len(images), chunk):
        if result is None:
            result = torch.empty(len(images), *made.shape[1:])
        result[start : start + len(made)] = made
        start += len(made)
    return result


def with_gradients(
    model: nn.Module, x: torch.Tensor, question: Question | Targets = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """All maps A and d score / dA of the logit in question, both (B, L, heads, T, T), detached.

    question: a class for all, (B,) classes, None for the predicted ones, or a Question, whose
    score may be the difference of two logits. One forward with timm's own unfused attention, one
    backward; works on frozen models and under torch.no_grad, and leaves no gradient behind.
    Raises as maps() and Question.score() do.
    """
    modules = [block.attn for block in vit.blocks(model)]
    fused = [attn.fused_attn for attn in modules]
    weights: list[torch.Tensor] = []
    hooks = [
        attn.attn_drop.register_forward_pre_hook(lambda _, given: weights.append(given[0]))
        for attn in modules
    ]
    try:
        for attn in modules:
            attn.fused_attn = False
        with evaluating(model), torch.enable_grad():
            score = as_question(question).score(model(x.detach().requires_grad_())).sum()
            if len(weights) != len(modules):
                raise ValueError(OWN_WAY.format("Some block's attention"))
            gradients = torch.autograd.grad(score, weights)
    finally:
        for attn, before, hook in zip(modules, fused, hooks, strict=True):
            attn.fused_attn = before
            hook.remove()
    return torch.stack([a.detach() for a in weights], 1), torch.stack(gradients, 1)


# ---------------------------------------------------------------- what they say of a head


def entropy(attention: torch.Tensor) -> torch.Tensor:
    """-sum A log A / log N over the last dimension (N), (...): 0 looks at one token, 1 at all alike.

    Rows without some tokens (CLS, say) are scaled to sum 1 first. Raises ValueError if N < 2.
    """
    n = attention.shape[-1]
    if n < 2:
        raise ValueError(f"Entropy needs two tokens at least to choose from, not {n}.")
    shares = attention.float() if attention.dtype == torch.float16 else attention
    shares = shares / shares.sum(-1, keepdim=True)
    return torch.special.entr(shares).sum(-1) / torch.log(torch.tensor(n, dtype=shares.dtype))


def distance(
    attention: torch.Tensor, grid: tuple[int, int], prefix: int = 1, patch: float = 1.0
) -> torch.Tensor:
    """Mean attention distance (Dosovitskiy et al. 2021, section 4.5): (B, L, heads, T, T) -> (B, L, heads).

    How far, on average, a patch looks: the distances between patch centres weighted by attention,
    mean over the querying patches; special tokens have no place and are left out. The unit is
    patches, or pixels if `patch` is a patch's width in pixels. Raises ValueError if the grid
    (rows, columns) and prefix do not make T.
    """
    if prefix + grid[0] * grid[1] != attention.shape[-1]:
        raise ValueError(
            f"{prefix} special tokens and a grid {grid} do not make {attention.shape[-1]} tokens."
        )
    place = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).to(attention)
    far = torch.cdist(place, place) * patch
    among = attention[..., prefix:, prefix:]
    return ((among * far).sum(-1) / among.sum(-1)).mean(-1)


@contextmanager
def ablated(model: nn.Module, block: int, head: int) -> Iterator[None]:
    """Inside, head `head` of block `block` (both from 0) writes zeros: what it read goes nowhere.

    Zeroes the head's part of what enters attn.proj. Raises ValueError if there is no such head.
    """
    blocks = vit.blocks(model)
    if not (0 <= block < len(blocks) and 0 <= head < blocks[block].attn.num_heads):
        raise ValueError(
            f"There is no head {head} in a block {block}: blocks are 0..{len(blocks) - 1}, "
            f"heads 0..{blocks[0].attn.num_heads - 1}."
        )
    attn = blocks[block].attn

    def silence(_: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        joined = given[0].clone()
        joined[..., head * attn.head_dim : (head + 1) * attn.head_dim] = 0
        return (joined,)

    hook = attn.proj.register_forward_pre_hook(silence)
    try:
        yield
    finally:
        hook.remove()


# ---------------------------------------------------------------- rollouts


def read_row(matrices: torch.Tensor, tokens: vit.Tokens = vit.CLS) -> torch.Tensor:
    """The read tokens' row of M_L ... M_1 without the special tokens: (B, L, T, T) -> (B, patches).

    Only that row is carried along, so each block costs a vector-matrix product.
    """
    row = matrices[:, -1, tokens.read].mean(1, keepdim=True)
    for layer in range(matrices.shape[1] - 2, -1, -1):
        row = row @ matrices[:, layer]
    return row[:, 0, tokens.prefix :]


def plus_identity(mean: torch.Tensor) -> torch.Tensor:
    """(..., T, T) plus I, which stands for the residual connection."""
    return mean + torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)


def rollout(attention: torch.Tensor, tokens: vit.Tokens = vit.CLS) -> torch.Tensor:
    """Attention rollout (Abnar & Zuidema 2020, section 3): (B, L, heads, T, T) -> (B, patches).

    Mean over heads, plus the identity for the residual connection, rows normalised, and the
    product over blocks; of that, the row of the tokens that the head reads (vit.tokens(model);
    CLS without it). Values are in 0..1; with the special tokens' columns they would sum to 1.
    """
    mixed = plus_identity(attention.mean(2))
    return read_row(mixed / mixed.sum(-1, keepdim=True), tokens)


def gradient_rollout(
    model: nn.Module, x: torch.Tensor, question: Question | Targets = None
) -> torch.Tensor:
    """Gradient-weighted rollout (Chefer, Gur & Wolf, ICCV 2021, section 3, for self-attention).

    (B, 3, H, W) -> (B, patches): the head mean of (d score / dA x A)+ plus I, multiplied over the
    blocks without normalisation. Values >= 0; unlike plain rollout it depends on the target, and
    on the class that it is compared with. Raises as with_gradients() does, and ValueError for a
    head that pools by maximum or attention.
    """
    tokens = vit.tokens(model)
    attention, gradients = with_gradients(model, x, question)
    return read_row(plus_identity((gradients * attention).clamp(min=0).mean(2)), tokens)
