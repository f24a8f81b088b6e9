"""Attribution by input gradients: model input (b, C, H, W) and a question in, maps (b, H, W) out.

Each map is at the input's resolution and in the method's own unit. explain() runs these.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients
from torch import nn

from ..models import Question, prepare
from .masking import filled

BASELINES = ("black", "mean", "blur")
TOLERANCE = 0.005  # completeness error, as a share of F(x) - F(x'), that asks for no more steps
STEPS = 32, 512  # where adaptive integration starts and stops
COLOURS = 16  # uniform pictures that stand for "no content" in expected gradients


def weights_of(model: nn.Module, x: torch.Tensor, question: Question) -> torch.Tensor:
    """The question's weights (b, C) of the logits, its classes settled on x itself."""
    with torch.no_grad():
        return question.weights(model(x))


def weighted(model: nn.Module) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A function of inputs (b, C, H, W) and weights (b, classes): the score that is explained, (b,)."""

    def score(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        logits = model(x)
        return torch.where(weights == 0, 0, logits * weights).sum(1)

    return score


def saliency(model: nn.Module, x: torch.Tensor, question: Question, *, batch: int) -> torch.Tensor:
    """Largest absolute input gradient over the channels (Simonyan et al. 2014, section 3.1)."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(question.score(model(x)).sum(), x)[0].abs().amax(1)


def smoothgrad(
    model: nn.Module,
    x: torch.Tensor,
    question: Question,
    *,
    batch: int,
    samples: int,
    sigma: float,
    seed: int,
) -> torch.Tensor:
    """Mean gradient over noisy copies (Smilkov et al. 2017, section 3.1), absolute, channel sum.

    sigma is a share of each image's range. Every image gets the same noise pattern, so a map
    does not depend on which images are explained with it. `batch` copies at once.
    """
    if samples < 1 or sigma < 0:
        raise ValueError(
            f"SmoothGrad needs samples >= 1 and sigma >= 0, not {samples} and {sigma}."
        )
    weights, score = weights_of(model, x, question), weighted(model)
    generator = torch.Generator().manual_seed(seed)
    scale = sigma * (x.amax((1, 2, 3), True) - x.amin((1, 2, 3), True))
    noise = torch.randn(samples, *x.shape[1:], generator=generator)
    total = torch.zeros_like(x)
    for part in noise.split(max(1, batch // len(x))):
        noisy = (x + scale * part.to(x)[:, None]).flatten(0, 1)  # (samples at once * b, C, H, W)
        noisy = noisy.detach().requires_grad_()
        sums = score(noisy, weights.repeat(len(part), 1)).sum()
        total += torch.autograd.grad(sums, noisy)[0].unflatten(0, (len(part), len(x))).sum(0)
    return (total / samples).abs().sum(1)


# ---------------------------------------------------------------- compared with a baseline


def baseline_of(model: nn.Module, x: torch.Tensor, name: str) -> torch.Tensor:
    """A picture without content: black, the data's mean colour, or x blurred by an eighth."""
    if name not in BASELINES:
        raise ValueError(f"There is no baseline {name!r}: use one of {', '.join(BASELINES)}.")
    return filled(model, x, name)


def path_integral(
    model: nn.Module,
    x: torch.Tensor,
    question: Question,
    *,
    batch: int,
    steps: int | None,
    baseline: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attributions (b, H, W), completeness error, F(x) - F(x') and steps, each (b,).

    F is the score that the question asks about: a logit, or the difference of two.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"Integrated Gradients needs at least 1 step, not {steps}.")
    start = baseline_of(model, x, baseline)
    weights, score = weights_of(model, x, question), weighted(model)
    with torch.no_grad():
        difference = score(x, weights) - score(start, weights)
    heat = x.new_zeros(x[:, 0].shape)
    taken = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    left, n = torch.arange(len(x), device=x.device), steps or STEPS[0]
    while len(left):
        parts = IntegratedGradients(score).attribute(
            x[left],
            start[left],
            additional_forward_args=weights[left],
            n_steps=n,
            internal_batch_size=max(batch, len(left)),
        )
        heat[left], taken[left] = parts.detach().sum(1).to(heat), n
        error = (heat.sum((1, 2)) - difference).abs()
        left = left[error[left] > TOLERANCE * difference[left].abs()]
        n *= 2
        if steps is not None or n > STEPS[1]:
            break
    return heat, error, difference, taken


def integrated_gradients(
    model: nn.Module, x: torch.Tensor, question: Question, *, batch: int, **options: object
) -> torch.Tensor:
    """Integrated Gradients (Sundararajan et al. 2017, section 3): path_integral's maps."""
    return path_integral(model, x, question, batch=batch, **options)[0]


def expected_gradients(
    model: nn.Module,
    x: torch.Tensor,
    question: Question,
    *,
    batch: int,
    baselines: torch.Tensor | None,
    steps: int,
    seed: int,
) -> torch.Tensor:
    """Expected Gradients (Erion et al. 2021): Integrated Gradients averaged over baselines.

    The map sums to F(x) minus the mean of F over the baselines; one baseline gives Integrated
    Gradients. baselines: uint8 images (R, 3, h, w); None: pictures of one colour each, drawn from
    the seed, so that no colour counts as absent. captum's GradientShap estimates the same from
    random points of the paths; here `steps` points of each path are fixed, so that a map does not
    depend on which images are explained with it.
    """
    if steps < 1 or (baselines is not None and not len(baselines)):
        raise ValueError(
            "Expected Gradients needs at least 1 step and 1 baseline, "
            f"not {steps} and {COLOURS if baselines is None else len(baselines)}."
        )
    if baselines is None:
        colours = torch.rand(COLOURS, 3, 1, 1, generator=torch.Generator().manual_seed(seed))
        baselines = (255 * colours).round().to(torch.uint8).expand(-1, -1, 8, 8)
    weights, score = weights_of(model, x, question), weighted(model)
    total = torch.zeros_like(x[:, 0])
    for start in prepare(model, baselines, tuple(x.shape[-2:])):
        parts = IntegratedGradients(score).attribute(
            x,
            start.expand_as(x),
            additional_forward_args=weights,
            n_steps=steps,
            internal_batch_size=max(batch, len(x)),
        )
        total += parts.detach().sum(1).to(total)
    return total / len(baselines)
