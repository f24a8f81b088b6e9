"""Pixels: from files to uint8 tensors, and from those to what a model takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError

VERSION = 2  # of what read_image makes of a file; kept pixels of another one are read again
PIXEL_LIMIT = 64_000_000  # a larger picture could ask for gigabytes while it is unpacked


def _grey_levels(values: np.ndarray) -> np.ndarray:
    """Grey values of any number type (H, W) as uint8 levels, so that a picture can be seen.

    Whole numbers from 0 are taken to have 8, 12 or 16 bits, the fewest that hold the largest one
    (scanners write 12 bits into 16-bit files); real numbers from 0 to at most 1 are shares of
    white, up to 255 they are levels. Everything else (negative values, as of a CT scanner; 32
    bits) is stretched from its smallest value to its largest. Values that are not finite are 0.
    """
    exact = np.issubdtype(values.dtype, np.integer)
    values = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
    low, high = values.min(), values.max()
    whites = (255, 4095, 65535) if exact else (1, 255)
    white = next((w for w in whites if high <= w), None)
    if low < 0 or white is None:
        values, white = values - low, high - low
    return (values * (255 / (white or 1))).round().clip(0, 255).astype(np.uint8)


def _upright_rgb(opened: Image.Image) -> Image.Image:
    """The first frame, turned as EXIF says, in RGB; transparent parts become white."""
    image = ImageOps.exif_transpose(opened)
    if image.mode.startswith(("I", "F")):  # convert() would clip these to black or white
        image = Image.fromarray(_grey_levels(np.asarray(image)))
    if image.mode in ("P", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA":  # as a browser shows it
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read_image(file: str | Path, size: int | None = None) -> torch.Tensor:
    """One photograph as uint8 (3, H, W): upright (EXIF), RGB, first frame if animated.

    size: if given, the shorter side is resized to it and the middle cut out, (3, size, size).
    Grey values of 16 or 32 bits and real numbers are scaled (see _grey_levels).
    Raises ValueError, naming the file, if it is not a readable image or has more than PIXEL_LIMIT
    pixels.
    """
    name = getattr(file, "name", str(file))
    try:
        with Image.open(file) as opened:
            if opened.width * opened.height > PIXEL_LIMIT:
                raise ValueError(
                    f"{opened.width} x {opened.height} pixels are more than {PIXEL_LIMIT:,}"
                )
            image = _upright_rgb(opened)
            if size is not None:
                image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    except (
        UnidentifiedImageError,
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise ValueError(
            f"{name} cannot be read as an image ({error}): save it again as JPEG or PNG."
        ) from error
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


@cache
def _taps(n_in: int, n_out: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pillow's antialiased bilinear resize of one axis: int64 places and int32 weights, both (taps, n_out).

    Weights are rounded as there, to units of 2^-22; places that do not count have weight 0.
    """
    scale = n_in / n_out
    reach = max(scale, 1.0)
    centre = (torch.arange(n_out, dtype=torch.float64)[:, None] + 0.5) * scale
    weights = (1 - ((torch.arange(n_in) - centre + 0.5) / reach).abs()).clamp(min=0)
    weights = (weights / weights.sum(1, keepdim=True) * 2**22).round().int()
    places = weights.topk(int((weights > 0).sum(1).max()), 1).indices.sort(1).values
    return places.T.contiguous(), weights.gather(1, places).T.contiguous()


def _along(
    levels: torch.Tensor, places: torch.Tensor, weights: torch.Tensor, axis: int
) -> torch.Tensor:
    """int32 levels (B, 3, h, w) resized along one axis, rounded; sums stay below 2^31."""
    weights = weights[:, :, None] if axis == -2 else weights
    total = levels.index_select(axis, places[0]).mul_(weights[0])
    for place, weight in zip(places[1:], weights[1:], strict=True):
        total.addcmul_(levels.index_select(axis, place), weight)
    return total.add_(2**21).bitwise_right_shift_(22)


def _resize(images: torch.Tensor, size: int | tuple[int, int]) -> torch.Tensor:
    """uint8 (B, 3, h, w) -> levels (B, 3, H, W), uint8 or int32, equal to Pillow's.

    torch's uint8 kernel rounds its weights to about 15 bits: it is right where they are short
    binary fractions (32 to 128 pixels, say) and else a level off here and there; then Pillow's
    integer sums are taken. Like Pillow 13, they start with the rows unless the picture is so
    upright that shrinking the columns first saves work.
    """
    height, width = images.shape[-2:]
    rows, columns = sides(size)
    down, across = _taps(height, rows), _taps(width, columns)
    upright = height > rows and height - rows > 2 * (width - columns)
    short = all((weights % 2**10 == 0).all() for _, weights in (down, across))
    if short and not upright and images.device.type == "cpu":
        return F.interpolate(images, (rows, columns), mode="bilinear", antialias=True)
    axes = [(across, -1), (down, -2)]
    levels = images.int()
    for taps, axis in reversed(axes) if upright else axes:
        first, weights = (t.to(images.device) for t in taps)
        levels = _along(levels, first, weights, axis)
    return levels


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels: an int stands for a square."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def preprocess(
    images: torch.Tensor,
    size: int | tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> torch.Tensor:
    """uint8 (B, 3, h, w) -> normalised float32 (B, 3, H, W), on the images' device.

    size: the side of a square, or (H, W).

    Bilinear resize with antialiasing, equal to Pillow's level for level.
    """
    levels = 255 * torch.tensor([mean, std], dtype=torch.float32).view(2, 1, 3, 1, 1)
    shift, scale = levels.to(images.device, non_blocking=True)
    height, width = sides(size)
    ready = torch.empty(len(images), 3, height, width, device=images.device)
    # as many at once as a processor's cache holds
    chunk = max(1, 2**17 // (height * width)) if images.device.type == "cpu" else len(images)
    for some, place in zip(images.split(chunk), ready.split(chunk), strict=True):
        levels = some if some.shape[-2:] == (height, width) else _resize(some, size)
        torch.sub(levels, shift, out=place).div_(scale)
    return ready


def augment(images: torch.Tensor, generator: torch.Generator, pad: float = 0.125) -> torch.Tensor:
    """Random mirror and shift by up to `pad` of the width; uint8 (B, 3, h, w) in and out."""
    n, _, height, width = images.shape
    reach = round(pad * width)
    flip = torch.rand(n, generator=generator) < 0.5
    dy, dx = torch.randint(0, 2 * reach + 1, (2, n), generator=generator)
    rows = dy[:, None] + torch.arange(height)
    cols = dx[:, None] + torch.arange(width)
    cols = torch.where(flip[:, None], cols.flip(1), cols)
    rows, cols = (at.to(images.device, non_blocking=True) for at in (rows, cols))
    padded = F.pad(images, (reach,) * 4)
    index = torch.arange(n, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)


def blur(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur, sigma in pixels; any float or uint8 (B, C, H, W), same type out."""
    from torchvision.transforms.functional import gaussian_blur

    radius = max(1, round(3 * sigma))
    radius = min(radius, min(images.shape[-2:]) - 1)
    return gaussian_blur(images, 2 * radius + 1, sigma)


def _pixelate(x: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    small = F.interpolate(
        x, scale_factor=(0.6, 0.45, 0.3)[severity], mode="bilinear", antialias=True
    )
    return F.interpolate(small, x.shape[-2:], mode="nearest")


def _occlude(x: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    n, _, height, width = x.shape
    side = round((0.25, 0.4, 0.55)[severity] * height)
    top = torch.randint(0, height - side + 1, (n, 1, 1), generator=generator)
    left = torch.randint(0, width - side + 1, (n, 1, 1), generator=generator)
    y, x_at = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    hidden = (y >= top) & (y < top + side) & (x_at >= left) & (x_at < left + side)
    return torch.where(hidden[:, None].to(x.device), torch.tensor(0.5, device=x.device), x)


def _noise(x: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    return x + (0.04, 0.08, 0.16)[severity] * torch.randn(x.shape, generator=generator).to(x.device)


CORRUPTIONS: dict[str, Callable[[torch.Tensor, int, torch.Generator], torch.Tensor]] = {
    "noise": _noise,
    "blur": lambda x, s, g: blur(x, (0.6, 1.0, 1.6)[s] * x.shape[-1] / 32),
    "contrast": lambda x, s, g: (
        x.mean((1, 2, 3), True) + (0.6, 0.4, 0.2)[s] * (x - x.mean((1, 2, 3), True))
    ),
    "brightness": lambda x, s, g: x + (0.15, 0.3, 0.45)[s],
    "pixelate": _pixelate,
    "occlusion": _occlude,
}


def corrupt(images: torch.Tensor, kind: str, severity: int = 1, seed: int = 0) -> torch.Tensor:
    """uint8 (B, 3, H, W) damaged in one of the ways of CORRUPTIONS; severity 1 (mild) to 3."""
    if kind not in CORRUPTIONS:
        raise ValueError(f"There is no corruption {kind!r}: use {', '.join(CORRUPTIONS)}.")
    if severity not in (1, 2, 3):
        raise ValueError(f"Severity {severity} is not 1, 2 or 3.")
    damaged = CORRUPTIONS[kind](
        images.float() / 255, severity - 1, torch.Generator().manual_seed(seed)
    )
    return (damaged.clamp(0, 1) * 255).round().to(torch.uint8)
