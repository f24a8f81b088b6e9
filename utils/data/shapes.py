"""Shapes-10: the built-in image set. It needs no download and knows where its objects are.

Ten outlines are drawn from signed distance functions (negative inside) in normalised
coordinates, so that the same code gives images and ground-truth masks at any size.
"""

from __future__ import annotations

import math

import torch

CLASSES = (
    "disc",
    "ring",
    "square",
    "triangle",
    "cross",
    "star",
    "heart",
    "moon",
    "arrow",
    "hourglass",
)


def _polygon(corners: list[tuple[float, float]]):
    """Exact signed distance to a closed polygon: nearest edge, sign by the even-odd rule."""
    a = torch.tensor(corners)
    b = a.roll(-1, 0)
    edge = b - a

    def distance(p: torch.Tensor) -> torch.Tensor:
        best = torch.full(p.shape[:-1], torch.inf)
        inside = torch.zeros(p.shape[:-1], dtype=torch.bool)
        for start, end, e in zip(a, b, edge, strict=True):
            w = p - start
            t = ((w * e).sum(-1) / (e * e).sum()).clamp(0, 1)
            best = torch.minimum(best, (w - e * t[..., None]).norm(dim=-1))
            crosses = (start[1] > p[..., 1]) != (end[1] > p[..., 1])
            slope = e[0] / e[1] if e[1] != 0 else 0.0
            inside ^= crosses & (p[..., 0] < slope * w[..., 1] + start[0])
        return torch.where(inside, -best, best)

    return distance


def _disc(p: torch.Tensor, radius: float = 0.9, cx: float = 0.0) -> torch.Tensor:
    return (p - torch.tensor([cx, 0.0])).norm(dim=-1) - radius


def _regular(n: int, radii: tuple[float, ...]) -> list[tuple[float, float]]:
    """Corners on circles of alternating radii, the first one pointing up."""
    angles = [2 * math.pi * k / n for k in range(n)]
    return [
        (radii[k % len(radii)] * math.sin(t), -radii[k % len(radii)] * math.cos(t))
        for k, t in enumerate(angles)
    ]


_HEART = [
    (
        16 * math.sin(t) ** 3 / 17,
        -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17,
    )
    for t in (2 * math.pi * k / 40 for k in range(40))
]
_PLUS = [
    (-0.3, -1),
    (0.3, -1),
    (0.3, -0.3),
    (1, -0.3),
    (1, 0.3),
    (0.3, 0.3),
    (0.3, 1),
    (-0.3, 1),
    (-0.3, 0.3),
    (-1, 0.3),
    (-1, -0.3),
    (-0.3, -0.3),
]
_ARROW = [(-1, -0.25), (0.1, -0.25), (0.1, -0.75), (1, 0), (0.1, 0.75), (0.1, 0.25), (-1, 0.25)]

DISTANCES = {
    "disc": _disc,
    "ring": lambda p: (p.norm(dim=-1) - 0.72).abs() - 0.22,
    "square": _polygon([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]),
    "triangle": _polygon(_regular(3, (1.05,))),
    "cross": _polygon(_PLUS),
    "star": _polygon(_regular(10, (1.1, 0.45))),
    "heart": _polygon(_HEART),
    "moon": lambda p: torch.maximum(_disc(p), -_disc(p, 0.75, 0.5)),
    "arrow": _polygon(_ARROW),
    "hourglass": _polygon([(-0.8, -0.95), (0.8, -0.95), (-0.8, 0.95), (0.8, 0.95)]),
}


def _pink_noise(n: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """1/f noise (n, 3, size, size) with zero mean and unit deviation per image."""
    white = torch.randn(n, 3, size, size, generator=generator)
    fy, fx = torch.meshgrid(torch.fft.fftfreq(size), torch.fft.rfftfreq(size), indexing="ij")
    radius = (fx**2 + fy**2).sqrt()
    radius[0, 0] = torch.inf  # no constant part
    noise = torch.fft.irfft2(torch.fft.rfft2(white) / radius, s=(size, size))
    return noise / noise.std(dim=(1, 2, 3), keepdim=True)


def draw(labels: torch.Tensor, size: int = 32, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one image for each label.

    labels: int64 (N,), indices into CLASSES. Returns images uint8 (N, 3, size, size) and
    masks bool (N, size, size), true where the object covers at least half a pixel. Position,
    scale (radius 24-38 % of the width), rotation (up to 20 degrees) and colours are random;
    the object is bright, the ground dark. The same seed gives the same images.
    """
    generator = torch.Generator().manual_seed(seed)
    n = len(labels)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(n, *shape, generator=generator) * (high - low) + low

    radius = uniform(0.24, 0.38)
    centre = 0.5 + uniform(-1, 1, 2) * (0.5 - radius)[:, None] * 0.8
    angle = uniform(-math.pi / 9, math.pi / 9)
    axis = (torch.arange(size) + 0.5) / size
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)  # (size, size, 2) as x, y
    p = (grid[None] - centre[:, None, None]) / radius[:, None, None, None]
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    p = torch.einsum("nij,nhwj->nhwi", turn, p)

    distance = torch.empty(n, size, size)
    for index, name in enumerate(CLASSES):
        chosen = labels == index
        distance[chosen] = DISTANCES[name](p[chosen])
    coverage = (0.5 - distance * radius[:, None, None] * size).clamp(0, 1)  # anti-aliased edge

    paint = uniform(0.55, 1.0, 3)
    paint[torch.arange(n), torch.randint(0, 3, (n,), generator=generator)] = 0.95
    ground = (
        uniform(0.05, 0.3, 3)[..., None, None] + 0.09 * _pink_noise(n, size, generator)
    ).clamp(0, 0.5)
    blend = coverage[:, None] * paint[..., None, None] + (1 - coverage[:, None]) * ground
    blend = blend + 0.02 * torch.randn(blend.shape, generator=generator)
    return (blend.clamp(0, 1) * 255).round().to(torch.uint8), coverage >= 0.5


def balanced_labels(n: int, seed: int = 0) -> torch.Tensor:
    """n labels, every class equally often (to one), in random order; int64 (n,)."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return (torch.arange(n) % len(CLASSES))[order]
