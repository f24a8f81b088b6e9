"""A Vision Transformer's forward pass written out, with every tensor that relevance needs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import GELU, GELUTanh, LayerNorm, LayerScale, QuickGELU, RmsNorm
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from ..models import vit
from .replay import ANY, checked

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


# nothing, in eval mode
IDLE = ("drop", "attn.attn_drop", "attn.proj_drop", "mlp.drop1", "mlp.drop2")


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


def read_out(
    model: nn.Module, normed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normed tokens (B, T, D) -> the head's features (B, F), its weight (C, F) and logits (B, C).

    The two heads of a distilled DeiT, whose logits are averaged, are one head on both tokens.
    """
    if type(model) is VisionTransformerDistilled:
        features = normed[:, :2].flatten(1)
        weight = torch.cat([model.head.weight, model.head_dist.weight], 1) / 2
        bias = (model.head.bias + model.head_dist.bias) / 2
        return features, weight, F.linear(features, weight, bias)
    features = model.fc_norm(normed[:, vit.tokens(model).read].mean(1))
    return features, model.head.weight, model.head(features)


def replayed(
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
