"""Layer-wise relevance propagation: from one logit back to tokens or pixels.

Vision Transformers follow Chefer, Gur & Wolf, "Transformer Interpretability Beyond Attention
Visualization" (CVPR 2021, section 3); its rules stand in lrp_rules. CNNs have a composite of
their own, in lrp_resnet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block
from torch import nn

from ..models import Question, Targets, as_targets, vit
from .attention import plus_identity, read_row
from .lrp_resnet import resnet_relevance
from .lrp_rules import linear_rule, matmul_rule, mean_rule, sum_rule
from .replay import as_question, in_float32
from .replay_vit import Saved, check_vit, replayed

__all__ = [
    "RelevanceTrace",
    "linear_rule",
    "matmul_rule",
    "mean_rule",
    "relevance",
    "relevance_rollout",
    "resnet_relevance",
    "sum_rule",
    "transformer_attribution",
]


@dataclass(frozen=True)
class RelevanceTrace:
    """What relevance() found. L counts blocks from start_layer on, T tokens, the special ones first."""

    attn_cam: torch.Tensor  # (B, L, heads, T, T) relevance of the attention weights
    attn_grad: torch.Tensor  # (B, L, heads, T, T) d score / d attention weights
    block_sums: torch.Tensor  # (B, L) summed relevance at each block's input; 1 is conserved
    tokens: torch.Tensor  # (B, T, D) relevance of the first block's input
    targets: torch.Tensor  # (B,) explained classes


# ---------------------------------------------------------------- Vision Transformer


def _layer_rule(
    layer: nn.Linear, x: torch.Tensor, out: torch.Tensor, r: torch.Tensor
) -> torch.Tensor:
    """linear_rule, sparing the product that the forward pass found: out = layer(x)."""
    return linear_rule(layer.weight, x, r, out if layer.bias is None else out - layer.bias)


def _block_relevance(
    block: Block, saved: Saved, r: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Relevance (B, T, D) of the block's output -> that of its input, and attn_cam (B, H, T, T)."""
    x, normed, qkv, q, k, v, weights, joined, projected, attended, *of_mlp = (
        t.detach() for t in saved
    )
    middle, normed2, wide, hidden, narrow, added = of_mlp
    attn, mlp = block.attn, block.mlp
    past, through = sum_rule(middle, added, r)
    through = _layer_rule(mlp.fc2, hidden, narrow, through)
    r = past + _layer_rule(mlp.fc1, normed2, wide, through)

    past, through = sum_rule(x, attended, r)
    through = _layer_rule(attn.proj, joined, projected, through)
    heads = through.unflatten(-1, (attn.num_heads, attn.head_dim)).transpose(1, 2)
    cam, r_v = matmul_rule(weights, v, heads)
    r_q, r_k = matmul_rule(q, k.transpose(-2, -1), cam)  # the scale is left out
    r_qkv = torch.stack([r_q, r_k.transpose(-2, -1), r_v]).permute(1, 3, 0, 2, 4).flatten(2)
    return past + _layer_rule(attn.qkv, normed, qkv, r_qkv), cam


def _read_relevance(model: nn.Module, normed: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """Relevance (B, F) of the head's features -> (B, T, D) of the tokens."""
    read = vit.tokens(model).read
    out = torch.zeros_like(normed)
    if type(model) is VisionTransformerDistilled:
        out[:, read] = r.unflatten(1, (2, -1))
    else:
        out[:, read] = mean_rule(normed[:, read], r) if model.global_pool == "avg" else r[:, None]
    return out


def relevance(
    model: nn.Module,
    x: torch.Tensor,
    question: Question | Targets = None,
    start_layer: int = 0,
) -> RelevanceTrace:
    """Propagate relevance 1 at the target's logit down to block `start_layer`.

    x: (B, 3, H, W), normalised, on the model's device. question: a class for all, (B,) classes,
    None for the predicted ones, or a Question. Against another class relevance starts at the
    target as before (1 and -1 would cancel in every residual sum, and with them the map), and
    the gradients are those of the difference of the logits.

    One forward pass with attention written out, one of the model itself to check the first, one
    backward pass for the gradients, one pass of rules; in 32 bits at least, so that a model in
    16 bits gives the map of its rounded weights. Works under torch.no_grad and on frozen
    models; leaves no gradient behind. Understands class, distillation and register tokens,
    average pooling, LayerScale, normed queries and keys, a norm before the blocks and heads
    with one output. Raises ValueError, naming the part, for anything else, and for a model
    whose forward pass is not its class's.
    """
    check_vit(model)
    if not 0 <= start_layer < len(model.blocks):
        raise ValueError(
            f"start_layer {start_layer} is not among the model's blocks 0..{len(model.blocks) - 1}."
        )
    question = as_question(question)
    with in_float32(model, x) as (model, x):
        blocks = model.blocks[start_layer:]
        tape, normed, (features, weight, logits) = replayed(model, x, start_layer)
        score = question.score(logits).sum()
        grads = torch.autograd.grad(score, [saved[6] for saved in tape])

        with torch.no_grad():
            targets = as_targets(question.targets, logits)
            start = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
            r = _read_relevance(model, normed, linear_rule(weight, features, start))
            cams: list[torch.Tensor] = []
            sums: list[torch.Tensor] = []
            for block in reversed(blocks):
                r, cam = _block_relevance(block, tape.pop(), r)
                cams.insert(0, cam)
                sums.insert(0, r.sum((1, 2)))
    return RelevanceTrace(
        torch.stack(cams, 1), torch.stack(grads, 1), torch.stack(sums, 1), r, targets
    )


def _rolled(model: nn.Module, per_head: torch.Tensor) -> torch.Tensor:
    """(B, L, heads, T, T) -> (B, patches): positive parts, head mean, plus I, product of blocks."""
    with torch.autocast(per_head.device.type, enabled=False):
        return read_row(plus_identity(per_head.clamp(min=0).mean(2)), vit.tokens(model))


def transformer_attribution(
    model: nn.Module,
    x: torch.Tensor,
    question: Question | Targets = None,
    start_layer: int = 0,
) -> torch.Tensor:
    """Transformer attribution (Chefer et al. 2021, section 3.3): (B, 3, H, W) -> (B, patches).

    The blocks' head means of (gradient x relevance)+ plus I, multiplied from the last to
    start_layer; of that, the row of the tokens that the head reads (CLS; their mean if several),
    without the special tokens' columns. Values >= 0; against another class, what speaks for the
    target rather than for it. Raises as relevance() does.
    """
    trace = relevance(model, x, question, start_layer)
    return _rolled(model, trace.attn_grad * trace.attn_cam)


def relevance_rollout(
    model: nn.Module,
    x: torch.Tensor,
    question: Question | Targets = None,
    start_layer: int = 0,
) -> torch.Tensor:
    """The same without gradients: rollout of the attention's positive relevance, (B, patches)."""
    return _rolled(model, relevance(model, x, question, start_layer).attn_cam)
