"""What kind of Vision Transformer is this: where its tokens are, and what its head reads.

timm builds many: with a class token, two of them (distilled DeiT), register tokens, or none and
an average over patches. tokens() says which; from_torchvision() and from_huggingface() turn other
libraries' models into timm's, so that everything in this course works on them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from timm.layers.attention import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .zoo import IMAGENET

REMEDY = "use timm's VisionTransformer, or vit.from_torchvision or vit.from_huggingface to get one"


@dataclass(frozen=True)
class Tokens:
    """Where things are among a ViT's T tokens: `prefix` special ones, then the patches by rows."""

    prefix: int  # class, distillation and register tokens
    read: slice  # the tokens that the head reads; it averages over them
    row: str  # what the attention row of the read tokens is, for titles


CLS = Tokens(1, slice(0, 1), "CLS token")


def blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a timm ViT with timm's plain attention; ValueError, naming the part, otherwise."""
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        raise ValueError(f"{type(model).__name__} has no plain attention to show: {REMEDY}.")
    for i, block in enumerate(model.blocks):
        if type(getattr(block, "attn", None)) is not Attention:
            part = (
                f"{type(block.attn).__name__} as blocks.{i}.attn"
                if hasattr(block, "attn")
                else None
            )
            raise ValueError(
                f"This ViT has {part or type(block).__name__}, which is no plain attention to show: {REMEDY}."
            )
    return list(model.blocks)


def tokens(model: nn.Module) -> Tokens:
    """The token layout of a timm ViT, judged by what its head reads.

    "token" pooling reads CLS (a distilled DeiT CLS and the distillation token), "avg" all patches,
    with the prefix if the model says so. Raises ValueError for any other pooling or model.
    """
    blocks(model)
    prefix = model.num_prefix_tokens
    if type(model) is VisionTransformerDistilled:
        return Tokens(prefix, slice(0, 2), "mean of CLS and distillation token")
    if model.global_pool == "token" and model.cls_token is not None:
        return CLS if prefix == 1 else Tokens(prefix, CLS.read, CLS.row)
    if model.global_pool == "avg":
        if model.pool_include_prefix:
            return Tokens(prefix, slice(0, None), "mean over the queries of all tokens")
        return Tokens(prefix, slice(prefix, None), "mean over the queries of all patches")
    raise ValueError(
        f"This ViT has {model.global_pool!r} pooling, so no attention rows belong to its answer: "
        "use one with 'token' or 'avg' pooling, or ask for all rows."
    )


# ---------------------------------------------------------------- other libraries' models

BLOCK = r"blocks.\1."
TORCHVISION = {
    r"class_token": "cls_token",
    r"encoder\.pos_embedding": "pos_embed",
    r"conv_proj\.": "patch_embed.proj.",
    r"encoder\.layers\.encoder_layer_(\d+)\.ln_(\d)\.": BLOCK + r"norm\2.",
    r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_": BLOCK + "attn.qkv.",
    r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.": BLOCK + "attn.proj.",
    r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.": BLOCK + "mlp.fc1.",
    r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.": BLOCK + "mlp.fc2.",
    r"encoder\.ln\.": "norm.",
    r"heads\.head\.": "head.",
}
HUGGING = r"vit\.(?:encoder\.layer|layers)\.(\d+)\."  # transformers 4 and 5 name the same parts differently
HUGGINGFACE = {
    r"vit\.embeddings\.cls_token": "cls_token",
    r"vit\.embeddings\.position_embeddings": "pos_embed",
    r"vit\.embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    HUGGING + r"layernorm_before\.": BLOCK + "norm1.",
    HUGGING + r"layernorm_after\.": BLOCK + "norm2.",
    HUGGING + r"attention\.(?:attention\.)?(query|key|value)\.": BLOCK + r"attn.\2.",
    HUGGING + r"attention\.(q|k|v)_proj\.": BLOCK + r"attn.\2.",
    HUGGING + r"attention\.(?:output\.dense|o_proj)\.": BLOCK + "attn.proj.",
    HUGGING + r"(?:intermediate\.dense|mlp\.fc1)\.": BLOCK + "mlp.fc1.",
    HUGGING + r"(?:output\.dense|mlp\.fc2)\.": BLOCK + "mlp.fc2.",
    r"vit\.layernorm\.": "norm.",
    r"classifier\.": "head.",
}


def _renamed(
    state: dict[str, torch.Tensor], names: dict[str, str], source: str
) -> dict[str, torch.Tensor]:
    """The state with timm's names, query, key and value joined; ValueError for a part without one."""
    weights: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        new = next(
            (re.sub(f"^{old}", new, key) for old, new in names.items() if re.match(old, key)), None
        )
        if new is None:
            raise ValueError(
                f"This {source} has {key!r}, for which timm's ViT has no place: {REMEDY}."
            )
        weights[new] = value
    for key in [k for k in weights if re.search(r"attn\.(q|query)\.", k)]:
        parts = ("query", "key", "value") if ".query." in key else ("q", "k", "v")
        joined = [weights.pop(key.replace(f".{parts[0]}.", f".{part}.")) for part in parts]
        weights[key.replace(f".{parts[0]}.", ".qkv.")] = torch.cat(joined)
    return weights


def _converted(
    model: nn.Module,
    state: dict[str, torch.Tensor],
    logits: Callable[[torch.Tensor], torch.Tensor],
    size: int,
    heads: int,
    norm: Callable[..., nn.Module],
    statistics: tuple[tuple, tuple],
) -> VisionTransformer:
    """timm's ViT with this state, which must give these logits; eval mode, ready for explain()."""
    width, depth = (
        state["cls_token"].shape[-1],
        1 + max(int(k.split(".")[1]) for k in state if k[:7] == "blocks."),
    )
    ours = VisionTransformer(
        img_size=size,
        patch_size=state["patch_embed.proj.weight"].shape[-1],
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        num_classes=len(state["head.weight"]),
        qkv_bias="blocks.0.attn.qkv.bias" in state,
        norm_layer=norm,
    )
    ours.load_state_dict(state)
    parameter = next(model.parameters())
    ours = ours.to(parameter).eval()
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(parameter)
    modes = [m for m in model.modules() if m.training]
    try:
        with torch.no_grad():
            theirs, mine = logits(model.eval()(x)), ours(x)
    finally:
        for m in modes:
            m.training = True
    error = (mine - theirs).abs().max().item()
    if not error <= 1e-4 * max(1.0, theirs.abs().max().item()):
        raise ValueError(
            f"The conversion of this {type(model).__name__} changes its logits by {error:.2g}: "
            "it is not a plain ViT inside; take the model from timm."
        )
    ours.arch, ours.provenance = type(model).__name__, f"converted from {type(model).__module__}"
    ours.input_size, (ours.mean, ours.std) = size, statistics
    return ours


def from_torchvision(model: nn.Module) -> VisionTransformer:
    """torchvision's VisionTransformer (vit_b_16 and its kin) as timm's, with equal logits.

    A copy in eval mode, on the same device, with .input_size, .mean and .std (ImageNet's, as
    torchvision's weights expect) for explain(). Raises ValueError for other models, for a
    convolutional stem or a two-layer head, and if the logits differ.
    """
    if not (type(model).__name__ == "VisionTransformer" and hasattr(model, "conv_proj")):
        raise ValueError(
            f"{type(model).__name__} is not torchvision's VisionTransformer: {REMEDY}."
        )
    state = _renamed(model.state_dict(), TORCHVISION, "torchvision VisionTransformer")
    heads = model.encoder.layers[0].num_heads
    return _converted(
        model, state, lambda out: out, model.image_size, heads, model.norm_layer, IMAGENET
    )


def from_huggingface(
    model: nn.Module, mean: tuple[float, ...] = (0.5,) * 3, std: tuple[float, ...] = (0.5,) * 3
) -> VisionTransformer:
    """Hugging Face's ViTForImageClassification as timm's VisionTransformer, with equal logits.

    mean, std: those of the model's image processor (0.5 for Google's ViTs). A copy in eval mode,
    on the same device, ready for explain(). Raises ValueError for other models and if the logits
    differ, as with an activation other than GELU.
    """
    if type(model).__name__ != "ViTForImageClassification":
        raise ValueError(
            f"{type(model).__name__} is not Hugging Face's ViTForImageClassification: {REMEDY}."
        )
    state = _renamed(model.state_dict(), HUGGINGFACE, "ViTForImageClassification")
    norm = partial(nn.LayerNorm, eps=model.config.layer_norm_eps)
    heads, size = model.config.num_attention_heads, model.config.image_size
    return _converted(model, state, lambda out: out.logits, size, heads, norm, (mean, std))
