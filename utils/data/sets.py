"""Image sets and their splits: images with labels, and three disjoint parts of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch


@dataclass(frozen=True)
class ImageSet:
    """Images with labels. `masks` says which pixels are the object, where that is known."""

    images: torch.Tensor  # uint8 (N, 3, H, W)
    labels: torch.Tensor  # int64 (N,)
    classes: tuple[str, ...]
    source: str
    masks: torch.Tensor | None = None  # bool (N, H, W)

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(
                f"{self.source}: {len(self.images)} images but {len(self.labels)} labels; give each image one label."
            )
        if len(self.classes) < 2:
            raise ValueError(
                f"{self.source} holds one class ({', '.join(self.classes)}); a classifier needs two folders or more."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: torch.Tensor | np.ndarray | list[int]) -> ImageSet:
        """The images at `indices` (N',), in that order."""
        index = torch.as_tensor(np.asarray(indices), dtype=torch.int64)
        masks = None if self.masks is None else self.masks[index]
        return replace(self, images=self.images[index], labels=self.labels[index], masks=masks)

    def class_counts(self) -> dict[str, int]:
        """Number of images of each class."""
        counts = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, counts, strict=True))


@dataclass(frozen=True)
class Splits:
    """Three disjoint image sets and where they lie in their source (`indices`, for proof)."""

    train: ImageSet
    val: ImageSet
    test: ImageSet
    indices: dict[str, np.ndarray]


def draw_rows(
    labels: np.ndarray, sizes: tuple[int, ...], seed: int, stratify: bool
) -> list[np.ndarray]:
    """Disjoint random index sets of the given sizes; stratified: with the class shares of `labels`.

    Sorted by the place that each image has within its class (0..1), any stretch of the random
    order holds every class in proportion, to one image, however small a class or a set is.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    if stratify:
        place = np.empty(len(labels))
        for label in np.unique(labels):
            members = order[labels[order] == label]
            place[members] = (np.arange(len(members)) + 0.5) / len(members)
        order = order[np.argsort(place[order], kind="stable")]
    return np.split(order, np.cumsum(sizes))[: len(sizes)]
