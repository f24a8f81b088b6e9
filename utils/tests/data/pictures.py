"""Pictures that the tests of this folder plant on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image


def noise(n: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Random uint8 images (n, 3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, height, width), generator=generator, dtype=torch.uint8)


def picture(size: tuple[int, int] = (20, 20), level: int = 0) -> Image.Image:
    """A flat picture with this level of red."""
    return Image.new("RGB", size, (level, 100, 200))


def plant(folder: Path, counts: dict[str, int], size: tuple[int, int] = (20, 20)) -> None:
    """folder/<class>/img <k>.png, the level of red telling class and image apart."""
    for c, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            picture(size, (20 * c + k) % 256).save(folder / name / f"img {k}.png")
