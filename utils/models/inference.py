"""Running a model on images: preparing them, what is asked of the logits, and memory that suffices.

prepare() is the only place that turns images into model input; per_chunk() the only one that
bounds memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import torch
from timm.models.resnet import ResNet
from torch import nn
from torchvision.models import AlexNet

from ..data import preprocess
from ..env import autocast
from .imagenet import ARCH as IMAGENET
from .unwrap import REMEDY, plain

Result = TypeVar("Result")
Targets: TypeAlias = int | torch.Tensor | None
CHUNK = 256  # images per forward where no gradient is kept
LUMA = (0.299, 0.587, 0.114)  # grey from RGB (ITU-R BT.601, as Pillow's)


def ready(model: nn.Module) -> None:
    """ValueError, naming the remedy, unless the model says which images it takes."""
    missing = [n for n in ("input_size", "mean", "std") if not hasattr(model, n)]
    if missing:
        raise ValueError(
            f"This {type(model).__name__} does not say which images it takes ({', '.join(missing)} "
            "missing): prepare it with models.wrap(model, size, mean, std)."
        )


def prepare(
    model: nn.Module,
    images: torch.Tensor,
    size: int | tuple[int, int] | None = None,
    precise: bool = False,
) -> torch.Tensor:
    """uint8 (B, 3, h, w) -> the model's input (B, 3, H, W): its own size, mean, std, dtype and device.

    size: another side length in pixels than the model's own, or (H, W). A model with one mean
    takes grey images, (B, 1, H, W). precise: 32 bits at least, also for a model in 16. Raises
    ValueError for a model that models.wrap has not seen.
    """
    ready(model)
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    grey = len(model.mean) == 1
    mean, std = (tuple(values) * (3 if grey else 1) for values in (model.mean, model.std))
    x = preprocess(images.to(parameter.device), size or model.input_size, mean, std)
    if grey:
        x = (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    low = parameter.dtype.itemsize < 4
    return x if precise and low else x.to(parameter.dtype)


def memory_format(model: nn.Module) -> torch.memory_format:
    """channels_last where it is known to help: on a GPU; for ResNets, AlexNet, Lite0 on a CPU.

    Elsewhere on a CPU torch 2.15 can crash in the backward pass of some architectures.
    """
    known = isinstance(model, (ResNet, AlexNet)) or getattr(model, "arch", "") == IMAGENET
    helps = known or next(model.parameters()).is_cuda
    return torch.channels_last if helps else torch.contiguous_format


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, every module's own mode restored after; leaves torch.inference_mode.

    Compiled parts run as written and gradient checkpointing rests, so that hooks see every layer once.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode(False), plain(model):
            yield
    finally:
        for module in training:
            module.training = True


def logits_of(
    model: nn.Module, images: torch.Tensor, chunk: int = CHUNK, size: int | None = None
) -> torch.Tensor:
    """Logits (N, C), float32 on the CPU, for uint8 images (N, 3, h, w), `chunk` at a time.

    Runs in eval mode and leaves the model's modes as they were.
    """

    def run(rows: slice, _: int) -> torch.Tensor:
        x = prepare(model, images[rows], size)
        with autocast(x.device):
            return model(x.contiguous(memory_format=memory_format(model))).float().cpu()

    with evaluating(model), torch.no_grad():
        return torch.cat(list(per_chunk(run, len(images), chunk)))


def as_targets(targets: Targets, logits: torch.Tensor) -> torch.Tensor:
    """Classes to explain, int64 (B,): one for all, one each, or (None) the predicted ones.

    Raises ValueError if there are not B of them or one is no class of these logits (B, C).
    """
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        shape = getattr(logits, "shape", None)
        given = type(logits).__name__ if shape is None else tuple(shape)
        raise ValueError(f"The model's output is {given} instead of logits: {REMEDY}.")
    n, classes = logits.shape
    if targets is None:
        return logits.argmax(1)
    labels = torch.as_tensor(targets, dtype=torch.int64, device=logits.device)
    if labels.shape not in ((), (n,)):
        raise ValueError(
            f"{labels.numel()} targets for {n} images: give one class for all or one per image."
        )
    if ((labels < 0) | (labels >= classes)).any():
        raise ValueError(
            f"Target {labels.tolist()} is not among the model's classes 0..{classes - 1}."
        )
    return labels.expand(n)


@dataclass(frozen=True)
class Question:
    """What is asked of a model's logits: why `targets`, or why `targets` rather than `against`?

    Each is a class for all images, (B,) classes, or None. targets None: the predicted classes,
    read off whichever logits score() is given. against None: the target's logit alone. A model with
    one output is asked about that output and, with any against, about its negative.
    """

    targets: Targets = None
    against: Targets = None

    def __getitem__(self, rows: slice) -> Question:
        """The question about some of the images."""
        return Question(*(_rows(t, rows) for t in (self.targets, self.against)))

    def weights(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, C): 1 at the target, -1 at the class it is compared with, 0 elsewhere.

        The relevance that LRP starts with. Raises ValueError as as_targets() does, and where
        target and comparison are the same class.
        """
        targets = as_targets(self.targets, logits)
        rows = torch.arange(len(logits), device=logits.device)
        weights = torch.zeros_like(logits)
        weights[rows, targets] = 1
        if self.against is None:
            return weights
        others = as_targets(self.against, logits)
        if logits.shape[1] == 1:
            return -weights
        if (others == targets).any():
            raise ValueError(
                "A class cannot be explained against itself: give another class as against."
            )
        weights[rows, others] = -1
        return weights

    def score(self, logits: torch.Tensor) -> torch.Tensor:
        """(B,): the target's logit, less that of the class it is compared with. Differentiable."""
        weights = self.weights(logits.detach() if isinstance(logits, torch.Tensor) else logits)
        return torch.where(weights == 0, 0, logits * weights).sum(1)

    def settled(self, logits: torch.Tensor) -> Question:
        """The same question with its classes written out, (B,) each, for inputs that will change."""
        targets = as_targets(self.targets, logits)
        against = None if self.against is None else as_targets(self.against, logits)
        return Question(targets, against)

    def repeat(self, times: int) -> Question:
        """The question about `times` copies of a settled one's batch, one copy after the other."""
        return Question(
            *(
                t.repeat(times) if isinstance(t, torch.Tensor) and t.ndim else t
                for t in (self.targets, self.against)
            )
        )


def _rows(targets: Targets, rows: slice) -> Targets:
    if isinstance(targets, torch.Tensor) and targets.ndim:
        return targets[rows]
    return targets


def per_chunk(run: Callable[[slice, int], Result], n: int, chunk: int) -> Iterator[Result]:
    """run(rows, chunk) for consecutive slices of n rows, at most `chunk` rows in each.

    When the GPU's memory does not suffice, the chunk is halved, which is printed, and the same
    rows are tried again; nothing computed before is lost. Raises ValueError if chunk is below 1,
    RuntimeError if even one row does not fit.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, not {chunk}.")
    start = 0
    while start < n:
        rows = slice(start, min(n, start + chunk))
        full = False
        try:
            result = run(rows, chunk)
        except torch.cuda.OutOfMemoryError:
            full = True  # handled below, where the failed call's tensors are no longer referred to
        if not full:
            yield result
            start = rows.stop
            continue
        if chunk == 1:
            raise RuntimeError(
                "Not even one image fits into the GPU's memory: close other programs that use it, "
                "choose a smaller model or profile, or set XTL_DEVICE=cpu."
            )
        torch.cuda.empty_cache()
        chunk //= 2
        print(f"The GPU's memory does not suffice: going on with {chunk} images at once.")
