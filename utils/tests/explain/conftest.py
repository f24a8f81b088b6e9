"""Numbers stored from published code, and small Vision Transformers of several kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import timm
import torch
from timm.models import VisionTransformer
from torch import nn

VITS = {
    "plain": dict(),
    "mean pooling": dict(global_pool="avg", fc_norm=True),
    "registers": dict(reg_tokens=4),
    "layer scale, normed queries": dict(init_values=0.5, qk_norm=True),
    "norm before, RMSNorm": dict(pre_norm=True, norm_layer=timm.layers.RmsNorm),
}


def stored(name: str) -> dict[str, torch.Tensor]:
    """A reference file beside the tests."""
    with np.load(Path(__file__).with_name(f"{name}_reference.npz")) as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def weights(reference: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict in a reference."""
    return {key[3:]: value for key, value in reference.items() if key.startswith("sd/")}


def published_vit(reference: dict[str, torch.Tensor]) -> nn.Module:
    """The ViT of the reference for LRP, in float64."""
    model = VisionTransformer(
        img_size=32, patch_size=4, embed_dim=64, depth=3, num_heads=4, num_classes=10
    )
    model.load_state_dict(weights(reference))
    return model.double().eval()


def small(name: str = "plain", depth: int = 2) -> nn.Module:
    """One of VITS: 4 x 4 patches, 5 classes."""
    size = dict(img_size=32, patch_size=8, embed_dim=32, depth=depth, num_heads=4, num_classes=5)
    return VisionTransformer(**size, **VITS[name])


def randomised(model: nn.Module, biases: bool = True) -> nn.Module:
    """Every parameter drawn again, large enough to matter; without biases nothing is additive."""
    generator = torch.Generator().manual_seed(0)
    additive = ("bias", "cls_token", "dist_token", "reg_token", "pos_embed")
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        if name.endswith(additive):
            parameter.data = drawn * 0.3 * biases
        elif parameter.ndim > 1:
            parameter.data = drawn * 1.5 * parameter[0].numel() ** -0.5
        else:
            parameter.data = 1 + 0.3 * drawn
    return model.double().eval()
