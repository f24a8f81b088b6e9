"""What each family of methods costs, as a multiple of the passes through the model it must make.

Occlusion must make one forward pass a cell and one for the whole picture, RISE one a mask, exact
Shapley values one a coalition; expected gradients a forward and a backward pass for each step from
each baseline, AttnLRP one of both, a class activation map one forward pass. The peer makes these
passes and nothing else, in batches of the same size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from .. import explain
from ..explain import gradients
from ..models import Question
from . import measure
from .alone import model_of
from .measure import Entry

TARGET = 1.15  # times the passes it must make
BATCH = 64  # copies of pictures at once


@dataclass(frozen=True)
class Passes:
    """What one picture's map must cost: passes through the model, with or without the gradient."""

    count: int
    gradient: bool = False
    options: tuple[tuple[str, int], ...] = ()
    most: float = TARGET  # times these passes


def needed(tiny: bool = False) -> dict[str, Passes]:
    """The passes that one picture's map must make, {method: Passes}."""
    grid, masks, steps = (2, 8, 1) if tiny else (8, 512, 8)
    return {
        "occlusion": Passes(grid**2 + 1, options=(("grid", grid),)),
        "rise": Passes(masks, options=(("masks", masks),)),
        "shapley": Passes(16 if tiny else 512, options=(("grid", 2 if tiny else 3),)),
        "expected_gradients": Passes(gradients.COLOURS * steps, True, (("steps", steps),)),
        "attnlrp": Passes(1, True, most=2.5),
        "hirescam": Passes(1),
        "layercam": Passes(1),
        "eigencam": Passes(1),
    }


def _plain(model: nn.Module, x: torch.Tensor, passes: Passes) -> None:
    """The passes alone: `count` for each picture of x (b, 3, H, W), BATCH copies at once."""
    left = passes.count * len(x)
    while left:
        size = min(left, BATCH)
        copies = x[torch.arange(size) % len(x)].requires_grad_(passes.gradient)
        with torch.set_grad_enabled(passes.gradient):
            score = model(copies)[:, 0].sum()
        if passes.gradient:
            torch.autograd.grad(score, copies)
        left -= size


def cost(device: torch.device, tiny: bool, method: str) -> list[Entry]:
    """One method on the network it is written for, against the passes that it must make.

    Also how many passes it makes for a picture, against those it must make: one more may settle
    the class or score the whole picture.
    """
    passes = needed(tiny)[method]
    arch = "resnet34_slim" if method.endswith("cam") else "vit_mini"
    n = 2 if tiny or passes.count > 1 else BATCH
    model, x, targets = model_of(arch, device, n)
    how = explain.METHODS[method]
    options = how.with_defaults(dict(passes.options))
    ours: Callable[[], torch.Tensor] = partial(
        how.run, model, x, Question(targets), batch=BATCH, **options
    )
    seen: list[int] = []
    hook = model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    ours()
    hook.remove()
    many = passes.count > 16
    pairs = measure.interleaved(
        ours, partial(_plain, model, x, passes), device, 1 if tiny else 3 if many else 7
    )
    kind = "forward and backward" if passes.gradient else "forward"
    what = f"{arch}, {n} images, against {passes.count} {kind} passes an image"
    made = (sum(seen) / n, passes.count + 1)
    return [measure.entry(f"cost_{method}", what, pairs, passes.most, False, passes=made)]


CASES: dict[str, Callable[[torch.device, bool], list[Entry]]] = {
    f"cost_{method}": partial(cost, method=method) for method in needed()
}
