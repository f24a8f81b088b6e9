"""Rules of layer-wise relevance propagation for transformers (Chefer, Gur & Wolf, CVPR 2021, section 3).

A rule takes the inputs of an operation and the relevance of its output, and gives the
relevance of the inputs. Operations without a rule here (layer norm, GELU, softmax,
dropout) pass relevance on unchanged.
"""

from __future__ import annotations

import torch

# keeps quotients finite; the published 1e-9 would lose 3e-9 of the relevance in 3 blocks
EPS = 1e-12
EPS_SUM = 1e-9  # as published: where residual sums nearly cancel, its size shows in the result


def _ratio(a: torch.Tensor, b: torch.Tensor, eps: float = EPS) -> torch.Tensor:
    """a / (b + eps), and 0 where b is 0."""
    shifted = b + eps
    return torch.where((b == 0) | (shifted == 0), 0, a / shifted)


def linear_rule(
    weight: torch.Tensor, x: torch.Tensor, r: torch.Tensor, product: torch.Tensor | None = None
) -> torch.Tensor:
    """Positive contributions only (alpha 1, beta 0), bias left out; x (..., in), r (..., out).

    product: x @ weight.T, where the forward pass has it. x+ W+ + x- W- is (x W + |x| |W|) / 2, so
    that with it three matrix products do instead of four.
    """
    size, sizes = x.abs(), weight.abs()
    product = x @ weight.T if product is None else product
    s = _ratio(r, (product + size @ sizes.T).clamp(min=0))  # twice the sum, and so s is half of it
    return x * (s @ weight) + size * (s @ sizes)


def matmul_rule(
    a: torch.Tensor, b: torch.Tensor, r: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half of r to each factor of a @ b, in proportion to its part in each product."""
    s = _ratio(r, a @ b)
    return a * (s @ b.transpose(-2, -1)) / 2, b * (a.transpose(-2, -1) @ s) / 2


def sum_rule(
    a: torch.Tensor, b: torch.Tensor, r: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split r in proportion to a and b, then rescale each part so that nothing explodes.

    Where a + b nearly cancels, both parts are huge with opposite signs; the rescaling (section
    3.2) keeps the sum of r. Sums are per sample, so batches give what single images give.
    """
    s = _ratio(r, a + b, EPS_SUM)
    parts = a * s, b * s
    sums = [part.sum((1, 2), keepdim=True) for part in parts]
    size = sums[0].abs() + sums[1].abs()
    share = torch.where(size == 0, 0, r.sum((1, 2), keepdim=True) / size)
    return parts[0] * share * sums[0].sign(), parts[1] * share * sums[1].sign()


def mean_rule(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """Mean over tokens: x (B, N, D), r (B, D) -> (B, N, D).

    In proportion to the values of the mean's own sign: those that pushed it where it is.
    """
    pushing = torch.where(x.sign() == x.mean(1, keepdim=True).sign(), x, 0)
    return pushing * _ratio(r, pushing.sum(1))[:, None]
