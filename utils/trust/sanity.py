"""Is a map about the model? Compare maps before and after the weights or the picture change."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from scipy.stats import entropy, rankdata
from skimage.metrics import structural_similarity
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .localisation import check_maps

__all__ = [
    "cascade",
    "class_sensitivity",
    "complexity",
    "complexity_rise",
    "empty",
    "randomised",
    "rank_correlation",
    "shifted",
    "similarity",
    "smoothed",
    "spearman",
    "ssim",
    "stages",
]


# ---------------------------------------------------------------- how alike two maps are


def empty(heatmaps: torch.Tensor) -> torch.Tensor:
    """Which maps (B, h, w) are constant, so that they say nothing: bool (B,).

    Count them for every method and layer, and leave them out of means.
    """
    flat = heatmaps.flatten(1)
    return flat.amax(1) == flat.amin(1)


def spearman(a: torch.Tensor, b: torch.Tensor, sign: bool = False) -> np.ndarray:
    """Rank correlation of maps (B, h, w), image by image: (B,) in -1..1.

    Of magnitudes (Adebayo et al. 2018, section 3, "ABS") or, with sign, of the values
    themselves: then evidence for and against must stay what it was. ValueError for constant maps.
    """
    kept = [maps if sign else maps.abs() for maps in (a, b)]
    return rank_correlation(*(check_maps(maps).flatten(1) for maps in kept))


def rank_correlation(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Spearman's correlation of rows (B, K): (B,) in -1..1, NaN for a row of equal values."""
    ranks = [rankdata(values.numpy(), axis=1) for values in (a, b)]
    x, y = (r - r.mean(1, keepdims=True) for r in ranks)
    with np.errstate(invalid="ignore"):
        return (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))


def ssim(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) of magnitudes of maps (B, h, w): (B,) in -1..1.

    Each map is scaled to 0..1; windows of 7 pixels. Raises ValueError for a constant map.
    """
    scaled = [check_maps(maps.abs()) / maps.abs().amax((1, 2), keepdim=True) for maps in (a, b)]
    pairs = zip(*(maps.double().numpy() for maps in scaled), strict=True)
    return np.array([structural_similarity(x, y, data_range=1.0) for x, y in pairs])


def similarity(a: torch.Tensor, b: torch.Tensor) -> dict[str, np.ndarray]:
    """{"ssim", "magnitude", "sign": (B,)} of maps (B, h, w); NaN where one of the two is empty.

    "magnitude" and "sign" are Spearman's correlation of absolute values and of the values
    themselves. np.nanmean leaves the empty maps out; count them with empty().
    """
    both = ~(empty(a) | empty(b) | empty(a.abs()) | empty(b.abs()))
    measures: dict[str, Callable[..., np.ndarray]] = {
        "ssim": ssim,
        "magnitude": spearman,
        "sign": partial(spearman, sign=True),
    }
    results = {}
    for name, measure in measures.items():
        results[name] = np.full(len(a), np.nan)
        if both.any():
            results[name][both.numpy()] = measure(a[both], b[both])
    return results


def class_sensitivity(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """1 - |cosine| of the maps (B, h, w) of two classes: (B,) in 0..1, NaN for a zero map.

    0: the same picture for both classes, also if only its sign is turned; 1: nothing in common.
    """
    first, second = (maps.double().flatten(1) for maps in (a, b))
    length = first.norm(dim=1) * second.norm(dim=1)
    cosine = (first * second).sum(1) / length
    return torch.where(length > 0, 1 - cosine.abs().clamp(max=1), torch.nan).numpy()


def complexity(heatmaps: torch.Tensor, bins: int = 100) -> np.ndarray:
    """Entropy in nats of the histogram of each map's magnitudes (B, h, w): (B,).

    The complexity of Hedström et al. 2024, section 4.2: a map of the untrained network should
    hold more different values than a map of the trained one. NaN for a constant map.
    """
    values = heatmaps.abs().flatten(1).double().numpy()
    entropies = [entropy(np.histogram(v, bins)[0]) if np.ptp(v) > 0 else np.nan for v in values]
    return np.array(entropies)


def complexity_rise(before: torch.Tensor, after: torch.Tensor, bins: int = 100) -> np.ndarray:
    """Efficient MPRT: relative rise of complexity from the trained to the random network, (B,).

    Above 0 as it should be, at or below 0 for a map that does not notice. One pair of maps
    replaces the whole cascade.
    """
    start = complexity(before, bins)
    return (complexity(after, bins) - start) / start


def smoothed(
    explain: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    samples: int = 10,
    noise: float = 0.1,
    seed: int = 0,
) -> torch.Tensor:
    """Smooth MPRT: the mean map of noisy copies, compared in place of the map itself; (B, h, w).

    explain: uint8 images (B, 3, h, w) -> maps (B, h, w). noise: deviation as a share of the range
    0..255. Hedström et al. 2024, section 4.1: averaging removes the shattered gradients' share of
    the difference, which is not the model's.
    """
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(images), *images.shape[-2:])
    for _ in range(samples):
        grain = 255 * noise * torch.randn(images.shape[1:], generator=generator)
        total += explain((images + grain).clamp(0, 255).round().to(torch.uint8))
    return total / samples


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


# ---------------------------------------------------------------- pictures


def shifted(x: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    """Pictures or maps (..., h, w) moved down by dy and right by dx pixels; the border repeats."""
    height, width = x.shape[-2:]
    rows = (torch.arange(height) - dy).clamp(0, height - 1)
    columns = (torch.arange(width) - dx).clamp(0, width - 1)
    return x[..., rows, :][..., columns]
