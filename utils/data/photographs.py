"""Real photographs without a download: those that come with scikit-image."""

from __future__ import annotations

from pathlib import Path

import skimage
import torch

from .pixels import read_image
from .sets import ImageSet

FILES = {  # what it shows: its file in scikit-image
    "cat": "chelsea.png",
    "espresso": "coffee.png",
    "rocket": "rocket.jpg",
    "motor scooter": "motorcycle_left.png",
}


def photographs(size: int = 224) -> ImageSet:
    """Four photographs of ImageNet classes, uint8 (4, 3, size, size), cut to their middle square."""
    folder = Path(skimage.__file__).parent / "data"
    images = torch.stack([read_image(folder / name, size) for name in FILES.values()])
    return ImageSet(images, torch.arange(len(FILES)), tuple(FILES), "scikit-image's photographs")
