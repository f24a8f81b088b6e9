"""Near-copies: pictures of the test set that lie among the training images as well.

Two crops or two encodings of one photograph differ in every byte. They are found by what they
look like: the correlation of small versions of them, first roughly for all pairs, then exactly
for those that could be copies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

ROUGH, EXACT = 8, 16  # side lengths in pixels: grey for the search, in colour for the answer
COPY = 0.95  # correlation of two pictures that pass for one
_MARGIN = 0.05  # how far below `above` the rough correlation of a copy may lie
_CHUNK = 512  # test images compared with all others at once


@dataclass(frozen=True)
class NearCopies:
    """Pairs of a test image and a training image that look the same, most alike first."""

    test: torch.Tensor  # int64 (K,), places in the test set; an image may have several copies
    train: torch.Tensor  # int64 (K,), places in the training images
    correlation: torch.Tensor  # float32 (K,), above the limit that was asked for
    n_test: int

    @property
    def images(self) -> int:
        """How many test images have at least one near-copy."""
        return len(self.test.unique())

    @property
    def share(self) -> float:
        """The same as a share of the test set, 0..1."""
        return self.images / self.n_test


def looks(images: torch.Tensor, side: int = EXACT, grey: bool = False) -> torch.Tensor:
    """uint8 (N, 3, h, w) -> (N, D) float32: small, without its mean, of length one.

    The product of two rows is the correlation of the two pictures, -1..1. A flat picture is all
    zeros: it is like nothing.
    """
    small = torch.cat([F.adaptive_avg_pool2d(part.float(), side) for part in images.split(2048)])
    small = (small.mean(1) if grey else small).flatten(1)
    return F.normalize(small - small.mean(1, keepdim=True), dim=1)


def near_copies(train: torch.Tensor, test: torch.Tensor, above: float = COPY) -> NearCopies:
    """All pairs of images whose correlation at 16 x 16 pixels in colour is larger than `above`.

    train, test: uint8 (N, 3, h, w) and (M, 3, h, w), perhaps of different sizes. The search goes
    over all N x M pairs, by their 8 x 8 grey versions; those within _MARGIN are compared in full.
    """
    rough_train, rough_test = (looks(part, ROUGH, grey=True) for part in (train, test))
    pairs = []
    for start in range(0, len(test), _CHUNK):
        likeness = rough_test[start : start + _CHUNK] @ rough_train.T
        rows, places = (likeness > above - _MARGIN).nonzero(as_tuple=True)
        pairs.append(torch.stack([rows + start, places]))
    candidates = torch.cat(pairs, 1)
    in_test, of_test = candidates[0].unique(return_inverse=True)
    in_train, of_train = candidates[1].unique(return_inverse=True)
    full_test, full_train = looks(test[in_test]), looks(train[in_train])
    correlation = torch.cat(
        [
            (full_test[a] * full_train[b]).sum(1)
            for a, b in zip(of_test.split(4096), of_train.split(4096), strict=True)
        ]
    )
    keep = correlation > above
    order = correlation[keep].argsort(descending=True, stable=True)
    test_rows, train_rows = (rows[keep][order] for rows in candidates)
    return NearCopies(test_rows, train_rows, correlation[keep][order], len(test))
