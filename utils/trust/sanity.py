"""Is a map about the model? Compare maps before and after the weights, the labels or the picture change."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import rankdata
from skimage.metrics import structural_similarity
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ..data import ImageSet
from .localisation import check

__all__ = [
    "cascade",
    "randomised",
    "shifted",
    "shuffled_labels",
    "similarity",
    "spearman",
    "ssim",
    "stages",
]


# ---------------------------------------------------------------- how alike two maps are


def spearman(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Rank correlation of the absolute values of maps (B, h, w), image by image: (B,) in -1..1.

    Adebayo et al. 2018, section 3 ("ABS"). Raises ValueError for a constant map.
    """
    ranks = [rankdata(check(maps.abs()).flatten(1).numpy(), axis=1) for maps in (a, b)]
    ranks = [r - r.mean(1, keepdims=True) for r in ranks]
    return (ranks[0] * ranks[1]).sum(1) / np.sqrt((ranks[0] ** 2).sum(1) * (ranks[1] ** 2).sum(1))


def ssim(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) of absolute maps (B, h, w), each scaled to 0..1: (B,) in -1..1.

    Windows of 7 pixels. Raises ValueError for a constant map.
    """
    scaled = [check(maps.abs()) / maps.abs().amax((1, 2), keepdim=True) for maps in (a, b)]
    pairs = zip(*(maps.double().numpy() for maps in scaled), strict=True)
    return np.array([structural_similarity(x, y, data_range=1.0) for x, y in pairs])


def similarity(a: torch.Tensor, b: torch.Tensor) -> dict[str, np.ndarray]:
    """{"ssim": (B,), "spearman": (B,)} of maps (B, h, w). An empty map (constant) resembles nothing: 0."""
    full = [(m.flatten(1).abs().amax(1) > m.flatten(1).abs().amin(1)) for m in (a, b)]
    both = full[0] & full[1]
    found = {}
    for name, measure in (("ssim", ssim), ("spearman", spearman)):
        found[name] = np.zeros(len(a))
        if both.any():
            found[name][both.numpy()] = measure(a[both], b[both])
    return found


# ---------------------------------------------------------------- weights


def stages(model: nn.Module) -> dict[str, list[str]]:
    """A model's parts from the output to the input: {stage: names of its modules}.

    ResNet: head, its four layers, stem; ViT: head, groups of three blocks, embedding; other
    models: each child that has weights. "" stands for parameters that belong to no part.
    """
    if isinstance(model, VisionTransformer):
        depth = len(model.blocks)
        groups = {
            f"blocks {i + 1}-{min(i + 3, depth)}": [
                f"blocks.{j}" for j in range(i, min(i + 3, depth))
            ][::-1]
            for i in range(0, depth, 3)
        }
        first, last = ["norm_pre", "patch_embed", ""], ["head", "fc_norm", "norm"]
        return {"head": last, **dict(reversed(groups.items())), "embedding": first}
    if hasattr(model, "layer4"):
        return {
            "head": ["fc"],
            **{f"layer{i}": [f"layer{i}"] for i in (4, 3, 2, 1)},
            "stem": ["bn1", "conv1"],
        }
    parts = [name for name, part in model.named_children() if any(True for _ in part.parameters())]
    return {name: [name] for name in reversed(parts)}


@torch.no_grad()
def _reset(model: nn.Module, name: str) -> None:
    """New initial values for one module and all below it; "" for the model's own parameters."""
    module = model.get_submodule(name) if name else model
    within = list(module.modules()) if name else []
    for part in reversed(within):
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    if not name:  # class token and positions of a ViT
        for parameter in module._parameters.values():
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)


def cascade(model: nn.Module, seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """Cascading parameter randomisation (Adebayo et al. 2018, section 4.1): (stage, model) pairs.

    From the head to the input, one stage more with each step gets new initial weights (those of
    the layers' own reset_parameters; batch norms forget their statistics). A copy in eval mode is
    yielded, the same object each time, so use it before going on; the model itself stays as it is.
    """
    twin = copy.deepcopy(model).eval()
    state = torch.Generator().manual_seed(seed).get_state()
    for stage, names in stages(twin).items():
        with torch.random.fork_rng(devices=[]):  # nobody else's random numbers change
            torch.set_rng_state(state)
            for name in names:
                _reset(twin, name)
            state = torch.get_rng_state()
        yield stage, twin


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy whose every weight is new: the last step of the cascade()."""
    return list(cascade(model, seed))[-1][1]


# ---------------------------------------------------------------- labels and pictures


def shuffled_labels(image_set: ImageSet, seed: int = 0) -> ImageSet:
    """The same images and class counts, every label drawn anew (Adebayo et al. 2018, section 4.2)."""
    order = torch.randperm(len(image_set), generator=torch.Generator().manual_seed(seed))
    return ImageSet(
        image_set.images,
        image_set.labels[order],
        image_set.classes,
        f"{image_set.source}, labels shuffled",
        image_set.masks,
    )


def shifted(x: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    """Pictures or maps (..., h, w) moved down by dy and right by dx pixels; the border repeats."""
    height, width = x.shape[-2:]
    rows = (torch.arange(height) - dy).clamp(0, height - 1)
    columns = (torch.arange(width) - dx).clamp(0, width - 1)
    return x[..., rows, :][..., columns]
