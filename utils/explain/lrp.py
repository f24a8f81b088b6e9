"""Layer-wise relevance propagation: from one logit back to tokens or pixels.

Vision Transformers follow Chefer, Gur & Wolf, "Transformer Interpretability Beyond Attention
Visualization" (CVPR 2021, section 3); its rules stand in lrp_rules. CNNs have a composite of
their own, in lrp_resnet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers import GELU, GELUTanh, LayerNorm, LayerScale, QuickGELU, RmsNorm
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from ..models import Question, Targets, as_targets, vit
from .attention import plus_identity, read_row
from .lrp_resnet import resnet_relevance
from .lrp_rules import linear_rule, matmul_rule, mean_rule, sum_rule
from .replay import ANY, as_question, checked, in_float32

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

Saved = tuple[torch.Tensor, ...]
NORMS = (nn.LayerNorm, LayerNorm, RmsNorm, nn.Identity)
PARTS: dict[str, tuple[type[nn.Module], ...]] = {
    "": (Block,),
    "attn": (Attention,),
    "mlp": (Mlp,),
    "mlp.act": (nn.GELU, GELU, GELUTanh, QuickGELU, nn.ReLU),
    **dict.fromkeys(("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"), (nn.Linear,)),
    **dict.fromkeys(
        ("norm1", "norm2", "attn.q_norm", "attn.k_norm", "attn.norm", "mlp.norm"), NORMS
    ),
    **dict.fromkeys(("ls1", "ls2"), (LayerScale, nn.Identity)),
}
IDLE = (
    "drop",
    "attn.attn_drop",
    "attn.proj_drop",
    "mlp.drop1",
    "mlp.drop2",
)  # nothing, in eval mode


def check_vit(model: nn.Module) -> None:
    """ValueError, naming the part, for anything that the rules above do not cover."""
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        raise ValueError(
            f"Relevance for {type(model).__name__} is not known: {vit.REMEDY}, or use {ANY}."
        )
    odd = [f"{model.global_pool!r} pooling"] * (model.global_pool not in ("token", "avg"))
    for name, part in (("norm", model.norm), ("fc_norm", model.fc_norm)):
        odd += [f"{type(part).__name__} as {name}"] * (type(part) not in NORMS)
    odd += ["a head that is not one linear layer"] * (type(model.head) is not nn.Linear)
    for block in model.blocks:
        for name, part in block.named_modules():
            if type(part) not in PARTS.get(name, (type(part),) if name.startswith(IDLE) else ()):
                odd += [type(part).__name__ + (f" as {name}" if name else "")]
    if odd:
        raise ValueError(
            f"This VisionTransformer has {odd[0]}, for which relevance has no rule: use {ANY}."
        )


def block_forward(block: Block, x: torch.Tensor) -> tuple[torch.Tensor, Saved]:
    """Block output (B, T, D) and every tensor that its relevance needs, attention written out."""
    attn, mlp = block.attn, block.mlp
    normed = block.norm1(x)
    qkv = attn.qkv(normed)
    q, k, v = qkv.unflatten(-1, (3, attn.num_heads, attn.head_dim)).permute(2, 0, 3, 1, 4)
    q, k = attn.q_norm(q), attn.k_norm(k)
    weights = (q * attn.scale @ k.transpose(-2, -1)).softmax(-1)
    joined = attn.norm((weights @ v).transpose(1, 2).flatten(2))
    projected = attn.proj(joined)
    attended = block.ls1(projected)
    middle = x + attended
    normed2 = block.norm2(middle)
    wide = mlp.fc1(normed2)
    hidden = mlp.norm(mlp.act(wide))
    narrow = mlp.fc2(hidden)
    added = block.ls2(narrow)
    saved = (x, normed, qkv, q, k, v, weights, joined, projected, attended)
    return middle + added, (*saved, middle, normed2, wide, hidden, narrow, added)


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


def read_out(
    model: nn.Module, normed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normed tokens (B, T, D) -> the head's features (B, F), its weight (C, F) and logits (B, C).

    The two heads of a distilled DeiT, whose logits are averaged, are one head on both tokens.
    """
    if type(model) is VisionTransformerDistilled:
        features = normed[:, :2].flatten(1)
        weight = torch.cat([model.head.weight, model.head_dist.weight], 1) / 2
        return (
            features,
            weight,
            F.linear(features, weight, (model.head.bias + model.head_dist.bias) / 2),
        )
    features = model.fc_norm(normed[:, vit.tokens(model).read].mean(1))
    return features, model.head.weight, model.head(features)


def _read_relevance(model: nn.Module, normed: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """Relevance (B, F) of the head's features -> (B, T, D) of the tokens."""
    read = vit.tokens(model).read
    out = torch.zeros_like(normed)
    if type(model) is VisionTransformerDistilled:
        out[:, read] = r.unflatten(1, (2, -1))
    else:
        out[:, read] = mean_rule(normed[:, read], r) if model.global_pool == "avg" else r[:, None]
    return out


def _replayed(
    model: nn.Module, x: torch.Tensor, start_layer: int
) -> tuple[list[Saved], torch.Tensor, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Forward, with a graph from block start_layer on: tape, normed tokens and read_out() of them."""
    with torch.no_grad():
        tokens = model.norm_pre(model._pos_embed(model.patch_embed(x)))
        tokens = model.blocks[:start_layer](tokens)
    with torch.enable_grad():
        tokens = tokens.detach().requires_grad_()  # so that frozen models have a graph too
        tape = []
        for block in model.blocks[start_layer:]:
            tokens, saved = block_forward(block, tokens)
            tape.append(saved)
        normed = model.norm(tokens)
        read = read_out(model, normed)
    checked(model, x, read[2].detach())
    return tape, normed, read


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
        tape, normed, (features, weight, logits) = _replayed(model, x, start_layer)
        score = question.score(logits).sum()
        grads = torch.autograd.grad(score, [saved[6] for saved in tape])

        with torch.no_grad():
            targets = as_targets(question.targets, logits)
            start = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
            r = _read_relevance(model, normed, linear_rule(weight, features, start))
            cams, sums = [], []
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
