"""Self-supervised objectives: what a Vision Transformer can learn from images without labels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import nn

from .. import data, models

# YIQ: one axis of brightness and a plane of colour, in which hue is an angle (FCC 1953)
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def random_mask(
    n: int, patches: int, keep: int, generator: torch.Generator
) -> tuple[torch.Tensor, ...]:
    """Which patches stay: indices (n, keep) int64; hidden (n, patches) bool is true for others."""
    kept = torch.rand(n, patches, generator=generator).argsort(1)[:, :keep]
    return kept, torch.ones(n, patches, dtype=torch.bool).scatter(1, kept, False)


def encode(encoder: nn.Module, x: torch.Tensor, kept: torch.Tensor | None = None) -> torch.Tensor:
    """Tokens (B, 1 + keep, D) after the last norm: CLS, then the patches `kept` (B, keep), or all.

    x: normalised images (B, 3, H, W). Only the kept patches are computed on, which is what makes
    a step cheap (He et al. 2022, section 3).
    """
    tokens = encoder._pos_embed(encoder.patch_embed(x))
    if kept is not None:
        index = F.pad(kept + 1, (1, 0))[:, :, None]  # CLS always stays
        tokens = tokens.gather(1, index.expand(-1, -1, tokens.shape[2]))
    return encoder.norm(encoder.blocks(tokens))


def patchify(x: torch.Tensor, patch: int) -> torch.Tensor:
    """Images (B, 3, H, W) as rows of pixels (B, patches, 3 * patch * patch), in the ViT's order."""
    return F.unfold(x, patch, stride=patch).transpose(1, 2)


def random_views(
    images: torch.Tensor, generator: torch.Generator, smallest: float = 0.25
) -> torch.Tensor:
    """One random view of each image: uint8 (B, 3, h, w) -> float (B, 3, h, w) in 0..1, same device.

    A crop of `smallest` to 1 of the area and of aspect 3:4 to 4:3, resized back; mirror; jitter of
    brightness, contrast, saturation and hue in four of five views, grey in every fifth (Chen et
    al. 2020, appendix A). The jitter is one 3x3 matrix an image.
    """
    n = len(images)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(n, generator=generator) * (high - low) + low

    area, aspect = uniform(smallest, 1), uniform(math.log(3 / 4), math.log(4 / 3)).exp()
    width, height = ((area * ratio).sqrt().clamp(max=1) for ratio in (aspect, 1 / aspect))
    left, top = (1 - width) * uniform(-1, 1), (1 - height) * uniform(-1, 1)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    crop = torch.zeros(n, 2, 3)
    crop[:, 0, 0], crop[:, 0, 2], crop[:, 1, 1], crop[:, 1, 2] = width * mirror, left, height, top

    jitter = (uniform(0, 1) < 0.8).float()
    brightness, contrast, saturation = (1 + jitter * uniform(-0.4, 0.4) for _ in range(3))
    saturation = saturation * (uniform(0, 1) >= 0.2)
    angle = jitter * uniform(-0.1, 0.1) * 2 * math.pi
    turn = torch.zeros(n, 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = saturation * angle.cos()
    turn[:, 2, 1] = saturation * angle.sin()
    turn[:, 1, 2] = -turn[:, 2, 1]
    colour = brightness[:, None, None] * (torch.linalg.inv(_YIQ) @ turn @ _YIQ)

    crop, colour, contrast = (
        t.to(images.device, non_blocking=True) for t in (crop, colour, contrast)
    )
    grid = F.affine_grid(crop, list(images.shape), align_corners=False)
    x = F.grid_sample(images.float() / 255, grid, padding_mode="reflection", align_corners=False)
    x = torch.einsum("bij,bjhw->bihw", colour, x)
    middle = x.mean((1, 2, 3), keepdim=True)
    return (middle + contrast[:, None, None, None] * (x - middle)).clamp(0, 1)


class Objective(nn.Module):
    """An encoder without its head, and what is thrown away after pretraining.

    forward(images uint8 (B, 3, h, w), generator) gives the loss. Everything random comes from the
    generator, so that a step can be repeated.
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        if not hasattr(encoder, "patch_embed"):
            raise ValueError(
                f"Self-supervised pretraining hides patches, which {encoder.arch} has not: "
                "take vit_mini."
            )
        encoder.reset_classifier(0)
        self.encoder, self.patches = encoder, encoder.patch_embed.num_patches
        grid = sincos(encoder.patch_embed.grid_size, encoder.embed_dim)
        with torch.no_grad():  # a good start for positions where no label tells their worth
            encoder.pos_embed[:, 1:] = grid

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that are no matrices (timm asks for them)."""
        return {
            n for n, p in self.named_parameters() if n.endswith(("_embed", "_token")) or p.ndim < 2
        }

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        """Views in 0..1 -> what the encoder takes."""
        mean, std = (
            torch.tensor([self.encoder.mean, self.encoder.std]).view(2, 1, 3, 1, 1).to(x.device)
        )
        x = (x - mean) / std
        return x.contiguous(memory_format=models.memory_format(self.encoder))


def sincos(grid: tuple[int, int], dim: int) -> torch.Tensor:
    """Positions (1, patches, dim) as sines and cosines (Vaswani et al. 2017), scaled for a ViT."""
    return 0.2 * build_sincos2d_pos_embed(list(grid), dim)[None]


class MAE(Objective):
    """Masked autoencoder: see a quarter of the patches, paint the rest (He et al. 2022)."""

    def __init__(self, encoder: nn.Module, visible: float = 0.25, dim: int = 64, depth: int = 1):
        super().__init__(encoder)
        self.keep, self.size = round(visible * self.patches), encoder.patch_embed.patch_size[0]
        self.bridge = nn.Linear(encoder.embed_dim, dim)
        self.mask_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.place_embed = nn.Parameter(sincos(encoder.patch_embed.grid_size, dim))
        self.blocks = nn.Sequential(*(Block(dim, 2, qkv_bias=True) for _ in range(depth)))
        self.norm, self.to_pixels = nn.LayerNorm(dim), nn.Linear(dim, 3 * self.size**2)

    def paint(self, x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Pixels of all patches (B, patches, 3 * size**2) from the kept ones of x (B, 3, H, W)."""
        seen = self.bridge(encode(self.encoder, x, kept))
        full = self.mask_token.to(seen.dtype).expand(len(x), self.patches, -1)
        full = full.scatter(1, kept[:, :, None].expand(-1, -1, seen.shape[2]), seen[:, 1:])
        tokens = self.blocks(torch.cat([seen[:, :1], full + self.place_embed], 1))
        return self.to_pixels(self.norm(tokens[:, 1:]))

    @staticmethod
    def painting_loss(
        painted: torch.Tensor, pixels: torch.Tensor, hidden: torch.Tensor
    ) -> torch.Tensor:
        """Mean squared error of hidden (B, patches) patches; each target has mean 0, variance 1."""
        mean, variance = pixels.mean(2, keepdim=True), pixels.var(2, keepdim=True)
        error = (painted.float() - (pixels - mean) / (variance + 1e-6).sqrt()).square().mean(2)
        return (error * hidden).sum() / hidden.sum()

    def forward(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The loss of one batch of uint8 images (B, 3, h, w): mirrored and shifted, then masked."""
        kept, hidden = random_mask(len(images), self.patches, self.keep, generator)
        kept, hidden = (t.to(images.device, non_blocking=True) for t in (kept, hidden))
        x = self.normalise(data.augment(images, generator).float() / 255)
        return self.painting_loss(self.paint(x, kept), patchify(x, self.size), hidden)


def _two_views(
    objective: Objective, images: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    return torch.cat([objective.normalise(random_views(images, generator)) for _ in range(2)])


def _kept(objective: Objective, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    kept, _ = random_mask(len(x), objective.patches, objective.keep, generator)
    return kept.to(x.device, non_blocking=True)


def _projector(dim: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dim, hidden), nn.BatchNorm1d(hidden), nn.ReLU(True), nn.Linear(hidden, out)
    )


class Contrast(Objective):
    """Find the other view of the same image among all of the batch (SimCLR, Chen et al. 2020).

    Each view shows only a share of its patches, as in FLIP (Li et al. 2023): cheaper, and harder.
    """

    def __init__(self, encoder: nn.Module, visible: float = 0.5, temperature: float = 0.2):
        super().__init__(encoder)
        self.keep, self.temperature = round(visible * self.patches), temperature
        self.project = _projector(encoder.embed_dim, 256, 64)

    def forward(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The loss of one batch of uint8 images (B, 3, h, w); ln(2B - 1) is chance."""
        x = _two_views(self, images, generator)
        cls = encode(self.encoder, x, _kept(self, x, generator))[:, 0]
        z = F.normalize(self.project(cls).float(), dim=1)
        alike = (z @ z.T / self.temperature).fill_diagonal_(-torch.inf)
        partner = torch.arange(len(z), device=z.device).roll(len(images))
        return F.cross_entropy(alike, partner)


OBJECTIVES: dict[str, type[Objective]] = {"mae": MAE, "contrast": Contrast}
SUMMARY = {
    "mae": "masked autoencoding",
    "contrast": "contrast of two masked views",
}


def build_objective(name: str, encoder: nn.Module) -> Objective:
    """The objective called `name` around a ViT, whose head it removes. Raises ValueError."""
    if name not in OBJECTIVES:
        raise ValueError(
            f"There is no self-supervised objective {name!r}: use {', '.join(OBJECTIVES)}."
        )
    return OBJECTIVES[name](encoder)
