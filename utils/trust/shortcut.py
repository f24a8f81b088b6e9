"""A planted shortcut: a mark of known place and colour that gives one class away."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..data import ImageSet


@dataclass(frozen=True)
class Watermark:
    """A square of one colour. Place and side in pixels of the image, colour in 0..255."""

    top: int = 1
    left: int = 1
    side: int = 6
    colour: tuple[int, int, int] = (255, 0, 255)

    def mask(self, height: int, width: int) -> torch.Tensor:
        """Which pixels it covers: bool (height, width). Raises ValueError if it leaves the picture."""
        bottom, right = self.top + self.side, self.left + self.side
        if self.top < 0 or self.left < 0 or self.side < 1 or bottom > height or right > width:
            raise ValueError(
                f"The watermark {self} does not lie in an image of {height} by {width} pixels."
            )
        found = torch.zeros(height, width, dtype=torch.bool)
        found[self.top : bottom, self.left : right] = True
        return found

    def stamp(self, images: torch.Tensor) -> torch.Tensor:
        """A copy of uint8 images (B, 3, h, w) with the mark on each."""
        colour = torch.tensor(self.colour, dtype=torch.uint8).view(3, 1, 1)
        return torch.where(self.mask(*images.shape[-2:]), colour, images)


def plant(
    image_set: ImageSet, target: int, mark: Watermark, share: float = 0.95, seed: int = 0
) -> tuple[ImageSet, torch.Tensor]:
    """Stamp `share` of the images of class `target`, and no others: the set, and which ones, bool (N,).

    Raises ValueError for a class without images and a share outside 0..1.
    """
    members = torch.nonzero(image_set.labels == target).flatten()
    if not len(members) or not 0 <= share <= 1:
        raise ValueError(
            f"Cannot stamp the share {share} of {len(members)} images of class {target}: give a class that is there and a share in 0..1."
        )
    lot = torch.randperm(len(members), generator=torch.Generator().manual_seed(seed))
    stamped = torch.zeros(len(image_set), dtype=torch.bool)
    stamped[members[lot[: round(share * len(members))]]] = True
    images = image_set.images.clone()
    images[stamped] = mark.stamp(images[stamped])
    return replace(
        image_set, images=images, source=f"{image_set.source} with a planted mark"
    ), stamped
