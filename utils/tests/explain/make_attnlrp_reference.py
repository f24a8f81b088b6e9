"""Write attnlrp_reference.npz: what the package lxt (2.1) gives for a small torchvision ViT.

Run once, with lxt installed (pip install --no-deps lxt, and tabulate):
    python utils/tests/explain/make_attnlrp_reference.py
The forward pass is torchvision's, written with lxt's explicit rules; relevance starts with the
target's logit.
"""

from __future__ import annotations

from pathlib import Path

import lxt.explicit.functional as lf
import numpy as np
import torch
import torch.nn.functional as F
from lxt.explicit import rules
from torchvision.models import VisionTransformer

EPSILON = 1e-12  # in place of 1e-6: the rules themselves, not their stabiliser


def make_vit(biases: bool = True) -> VisionTransformer:
    """32 px, patch 8, three blocks, random weights of some size; float64."""
    torch.manual_seed(0)
    model = VisionTransformer(32, 8, 3, 4, 32, 64, num_classes=10)
    for name, parameter in model.named_parameters():
        if "bias" in name or "class_token" in name or "pos_embedding" in name:
            torch.nn.init.normal_(parameter, std=0.3 * biases)
        elif parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.5 * parameter[0].numel() ** -0.5)
    return model.double().eval()


def linear(x: torch.Tensor, layer: torch.nn.Module) -> torch.Tensor:
    return lf.linear_epsilon(x, layer.weight, layer.bias, EPSILON)


def norm(x: torch.Tensor, layer: torch.nn.LayerNorm) -> torch.Tensor:
    return lf.layer_norm_grad_fn.apply(x, layer.weight, layer.bias, layer.eps, EPSILON)


def attention(x: torch.Tensor, attn: torch.nn.MultiheadAttention, cp: bool) -> torch.Tensor:
    n, t, d = x.shape
    qkv = lf.linear_epsilon(x, attn.in_proj_weight, attn.in_proj_bias, EPSILON)
    q, k, v = qkv.view(n, t, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    scale = q.shape[-1] ** -0.5
    if cp:
        weights = (q * scale @ k.transpose(-2, -1)).softmax(-1).detach()
        mixed = rules.epsilon_lrp(torch.matmul, EPSILON, weights, v)
    else:
        dots = lf.matmul(q, k.transpose(-2, -1), False, EPSILON)
        weights = lf.softmax(rules.identity(lambda z: z * scale, dots), -1)
        mixed = lf.matmul(weights, v, False, EPSILON)
    joined = mixed.transpose(1, 2).reshape(n, t, d)
    return linear(joined, attn.out_proj)


def logits(model: VisionTransformer, x: torch.Tensor, cp: bool = False) -> torch.Tensor:
    conv = model.conv_proj
    patches = F.unfold(x, conv.kernel_size, stride=conv.stride).transpose(1, 2)
    tokens = lf.linear_epsilon(patches, conv.weight.flatten(1), conv.bias, EPSILON)
    tokens = torch.cat([model.class_token.expand(len(x), -1, -1), tokens], 1)
    tokens = lf.add2(tokens, model.encoder.pos_embedding.expand_as(tokens), False, EPSILON)
    for block in model.encoder.layers:
        added = attention(norm(tokens, block.ln_1), block.self_attention, cp)
        tokens = lf.add2(tokens, added, False, EPSILON)
        wide = linear(norm(tokens, block.ln_2), block.mlp[0])
        added = linear(rules.identity(F.gelu, wide), block.mlp[3])
        tokens = lf.add2(tokens, added, False, EPSILON)
    return linear(norm(tokens, model.encoder.ln)[:, 0], model.heads.head)


def main() -> None:
    model = make_vit()
    model.requires_grad_(False)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    stored = {"x": x.numpy(), "target": np.asarray(4)}
    for name, cp in (("attnlrp", False), ("cp", True)):
        given = x.clone().requires_grad_()
        found = logits(model, given, cp)
        assert torch.allclose(found, model(x))
        (relevance,) = torch.autograd.grad(found[:, 4], given, found[:, 4].detach())
        stored[name] = relevance.numpy()
    stored |= {f"sd/{key}": value.float().numpy() for key, value in model.state_dict().items()}
    np.savez_compressed(Path(__file__).with_name("attnlrp_reference.npz"), **stored)


if __name__ == "__main__":
    main()
