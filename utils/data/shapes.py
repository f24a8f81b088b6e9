"""Shapes-10: the built-in image set. It needs no download and knows where its objects are.

Ten outlines are drawn from signed distance functions (negative inside) in normalised
coordinates, so that the same code gives images and ground-truth masks at any size.

The object cannot be found without looking at hues and their places together. The ground is made of
patches of two opposite hues, the object has a third one at right angles to both: all pixels have
the same distance from the mean colour, and one pattern of bright and dark runs through object and
ground alike. Objects stand off the centre, and each picture holds a smaller distractor, a bar in
the object's colour, that says nothing about the class.
"""

from __future__ import annotations

import math

import torch

from .pixels import blur

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

_BAR = _polygon([(-1, -0.3), (1, -0.3), (1, 0.3), (-1, 0.3)])  # the distractor, of no class
LIGHT, CHROMA = 0.04, 0.34  # deviation of the brightness, and the length of every hue


def _pink_noise(n: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """1/f noise (n, 3, size, size) with zero mean and unit deviation per image."""
    white = torch.randn(n, 3, size, size, generator=generator)
    fy, fx = torch.meshgrid(torch.fft.fftfreq(size), torch.fft.rfftfreq(size), indexing="ij")
    radius = (fx**2 + fy**2).sqrt()
    radius[0, 0] = torch.inf  # no constant part
    noise = torch.fft.irfft2(torch.fft.rfft2(white) / radius, s=(size, size))
    return noise / noise.std(dim=(1, 2, 3), keepdim=True)


def _layout(radius: torch.Tensor, angle: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Centres (N, 2) in 0..1, off the middle: `place` 1 touches the border, 0 is the middle."""
    direction = torch.stack([angle.cos(), angle.sin()], -1)
    direction = direction / direction.abs().amax(-1, keepdim=True)  # along a square, not a circle
    return 0.5 + direction * ((0.5 - 1.05 * radius) * place)[:, None]


def _coverage(
    labels: torch.Tensor, centre: torch.Tensor, radius: torch.Tensor, angle: torch.Tensor, size: int
) -> torch.Tensor:
    """How much of each pixel an object covers, anti-aliased: (N, size, size) in 0..1.

    labels index CLASSES; len(CLASSES) is the distractor.
    """
    axis = (torch.arange(size) + 0.5) / size
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)  # (size, size, 2) as x, y
    p = (grid[None] - centre[:, None, None]) / radius[:, None, None, None]
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    p = torch.einsum("nij,nhwj->nhwi", turn, p)
    distance = torch.empty(len(labels), size, size)
    for index, outline in enumerate((*DISTANCES.values(), _BAR)):
        members = labels == index
        distance[members] = outline(p[members])
    return (0.5 - distance * radius[:, None, None] * size).clamp(0, 1)


def _paint(coverage: torch.Tensor, hue: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """uint8 pictures (N, 3, size, size): coverage (N, size, size) in 0..1 of the hue (N,), an angle."""
    n, size = len(coverage), coverage.shape[-1]
    patches, shade = _pink_noise(n, size, generator)[:, :2].unbind(1)
    patches = blur(patches[:, None], size / 12)[:, 0]  # as large as an object's parts
    patches = patches - patches.flatten(1).median(1).values[:, None, None]  # half of each hue
    patches = (6 * patches / patches.std(dim=(1, 2), keepdim=True)).tanh()
    thirds = torch.tensor([0.0, 2 * math.pi / 3, 4 * math.pi / 3])
    own, across = (
        (angle[:, None] + thirds).cos()[..., None, None] for angle in (hue, hue + math.pi / 2)
    )  # each sums to zero over the channels: no brightness
    cover = coverage[:, None]
    colour = CHROMA * (cover * own + (1 - cover) * patches[:, None] * across)
    grain = 0.02 * torch.randn(n, 3, size, size, generator=generator)
    blend = 0.5 + colour + LIGHT * shade[:, None] + grain
    return (blend.clamp(0, 1) * 255).round().to(torch.uint8)


def draw(
    labels: torch.Tensor, size: int = 32, seed: int = 0, second: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one image for each label.

    labels: int64 (N,), indices into CLASSES. Returns images uint8 (N, 3, size, size) and
    masks bool (N, size, size), true where the object covers at least half a pixel. Position off
    the centre, scale (radius 26-30 % of the width), rotation (up to 20 degrees), pattern and (a little) hue
    are random. The same seed gives the same images.

    second: labels (N,) of a second object that takes the distractor's place, the harder level:
    which of the two does a map of its class mark? Masks are then (N, 2, size, size).
    """
    generator = torch.Generator().manual_seed(seed)
    n = len(labels)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(n, generator=generator) * (high - low) + low

    radius, towards = uniform(0.26, 0.30), uniform(-math.pi, math.pi)
    centre = _layout(radius, towards, uniform(1.1, 1.4))
    turned = uniform(-math.pi / 9, math.pi / 9)
    bar_radius, bar_turned = uniform(0.12, 0.16), uniform(-math.pi, math.pi)
    across = towards + math.pi + uniform(-0.5, 0.5)
    bar_place = uniform(0.75, 1.0)
    if second is None:
        other = torch.full_like(labels, len(CLASSES))
        other_at = _layout(bar_radius, across, bar_place)
    else:  # two objects of one size, in opposite corners, as far apart as they can be
        radius = bar_radius = radius.clamp(max=0.25)
        towards = math.pi / 4 + math.pi / 2 * (2 * towards / math.pi).floor()
        centre, other_at = (_layout(radius, a, torch.ones(n)) for a in (towards, towards + math.pi))
        other, bar_turned = second, bar_turned / 9
    coverage = _coverage(labels, centre, radius, turned, size)
    beside = _coverage(other, other_at, bar_radius, bar_turned, size)
    gap = _coverage(torch.zeros_like(labels), centre, 1.25 * radius, turned, size)
    apart = beside if second is not None else beside * (1 - gap)
    images = _paint(torch.maximum(coverage, apart), uniform(-0.3, 0.3), generator)
    if second is None:
        return images, coverage >= 0.5
    return images, torch.stack([coverage, beside], 1) >= 0.5


def balanced_labels(n: int, seed: int = 0) -> torch.Tensor:
    """n labels, every class equally often (to one), in random order; int64 (n,)."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return (torch.arange(n) % len(CLASSES))[order]
