"""A planted shortcut and the auditor's test: do maps alone give away which model uses it?

A mark goes on nearly all training images of one class. Models trained with it may take it for the
class; models trained without it cannot. An auditor who sees only maps of marked images should be
able to tell the two kinds apart, if the maps are worth anything.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ..data import ImageSet
from ..models import evaluating, head, per_chunk, prepare
from ..stats import Interval, auc_interval, mean_interval
from .localisation import evidence, mass_inside, pointing_game

__all__ = ["BAR", "GAIN", "Audit", "Mark", "audit", "plant", "retrained"]

# What a method needs to reveal a shortcut, fixed before any run: an AUC above BAR, and a rise of
# the share on the mark by GAIN. A computer can find smaller traces, a reader of the map cannot.
BAR, GAIN = 0.75, 0.10


@dataclass(frozen=True)
class Mark:
    """A square of one colour. Side in pixels of the image, colour in 0..255."""

    side: int = 8
    colour: tuple[int, int, int] = (255, 0, 255)

    def places(self, n: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
        """Random top left corners, int64 (n, 2). Raises ValueError if the mark does not fit."""
        if not 1 <= self.side <= min(height, width):
            raise ValueError(
                f"A mark of {self.side} pixels does not fit an image of {height} by {width}."
            )
        generator = torch.Generator().manual_seed(seed)
        room = torch.tensor([height - self.side + 1, width - self.side + 1])
        return (torch.rand(n, 2, generator=generator) * room).long()

    def masks(self, places: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Which pixels it covers at places (N, 2): bool (N, height, width)."""
        inside = [
            (torch.arange(extent) >= start[:, None])
            & (torch.arange(extent) < start[:, None] + self.side)
            for start, extent in zip(places.T, (height, width), strict=True)
        ]
        return inside[0][:, :, None] & inside[1][:, None]

    def stamp(self, images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """A copy of uint8 images (N, 3, h, w) with the mark at each one's place (N, 2)."""
        colour = torch.tensor(self.colour, dtype=torch.uint8).view(3, 1, 1)
        return torch.where(self.masks(places, *images.shape[-2:])[:, None], colour, images)


def plant(
    image_set: ImageSet, target: int, mark: Mark, share: float = 0.95, seed: int = 0
) -> tuple[ImageSet, torch.Tensor]:
    """Mark `share` of the images of class `target`, and no others: the set, and which, bool (N,).

    The place varies from image to image. Raises ValueError for a class without images and a share
    outside 0..1.
    """
    members = torch.nonzero(image_set.labels == target).flatten()
    if not len(members) or not 0 <= share <= 1:
        raise ValueError(
            f"Cannot mark the share {share} of {len(members)} images of class {target}: "
            "give a class that has images and a share in 0..1."
        )
    shuffled = torch.randperm(len(members), generator=torch.Generator().manual_seed(seed))
    marked = torch.zeros(len(image_set), dtype=torch.bool)
    marked[members[shuffled[: round(share * len(members))]]] = True
    images = image_set.images.clone()
    height, width = images.shape[-2:]
    places = mark.places(int(marked.sum()), height, width, seed=seed)
    images[marked] = mark.stamp(images[marked], places)
    return replace(image_set, images=images, source=f"{image_set.source} with a mark"), marked


# ---------------------------------------------------------------- many models, quickly


def _late(model: nn.Module) -> list[nn.Module]:
    """The parts that are trained anew: the last stage of a ResNet, a quarter of a ViT's blocks, the head."""
    if isinstance(model, ResNet):
        return [model.layer4, head(model)]
    if isinstance(model, VisionTransformer):
        return [*model.blocks[-max(1, len(model.blocks) // 4) :], model.norm, head(model)]
    raise ValueError(
        f"{type(model).__name__} is neither a timm ResNet nor a timm Vision Transformer: "
        "train the pairs of models in full."
    )


def _forward(model: nn.Module, x: torch.Tensor, early: bool) -> torch.Tensor:
    """The part of the forward pass before (early) or from the first of the _late parts on."""
    if isinstance(model, ResNet):
        if early:
            x = model.maxpool(model.act1(model.bn1(model.conv1(x))))
            return model.layer3(model.layer2(model.layer1(x)))
        return model.forward_head(model.layer4(x))
    first = len(model.blocks) - max(1, len(model.blocks) // 4)
    if early:
        x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))
        return model.blocks[:first](x)
    return model.forward_head(model.norm(model.blocks[first:](x)))


def retrained(
    model: nn.Module,
    train_set: ImageSet,
    seed: int,
    epochs: int = 8,
    lr: float | None = None,
    batch: int = 32,
) -> nn.Module:
    """A copy whose late layers are trained on train_set, from a new head; in eval mode.

    The early layers are the same for all seeds, so their output is computed once and the training
    takes seconds: this is what makes ten models affordable. AdamW, one-cycle rate, no augmentation.
    Of networks other than timm's ResNet and Vision Transformer all layers are trained, and batch
    norms keep their statistics. lr: 2e-3 for late layers and 5e-4 for whole networks if None.
    """
    whole = not isinstance(model, (ResNet, VisionTransformer))
    lr = lr or (5e-4 if whole else 2e-3)
    twin = copy.deepcopy(model)
    late = [twin] if whole else _late(twin)

    def run(rows: slice, _: int) -> torch.Tensor:
        with torch.no_grad():
            x = prepare(twin, train_set.images[rows])
            return x if whole else _forward(twin, x, early=True)

    with evaluating(twin):
        features = torch.cat(list(per_chunk(run, len(train_set), 128)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head(twin).reset_parameters()
    parameters = [p for part in late for p in part.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    steps = -(-len(train_set) // batch)
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * steps)
    generator = torch.Generator().manual_seed(seed)
    labels = train_set.labels.to(features.device)
    for part in late:
        part.train(not whole)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(batch):
            if len(rows) == 1 and epochs * steps > 1:
                continue  # batch norm cannot learn from a single image
            x = features[rows]
            logits = twin(x) if whole else _forward(twin, x, early=False)
            loss = F.cross_entropy(logits, labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    optimizer.zero_grad(set_to_none=True)
    return twin.eval()


# ---------------------------------------------------------------- the auditor


@dataclass(frozen=True)
class Audit:
    """What an auditor can tell from one method's maps of marked images."""

    auc: Interval  # telling models with the shortcut from models without, by the mass on the mark
    seeds: float  # the null: how well two models without it are told apart, 0.5 or more
    share: Interval  # of the mass on the mark, models with the shortcut
    gain: float  # that share minus the share in models without the shortcut
    area: float  # of the mark: what an even map would put there
    hits: float  # maps of models with the shortcut that peak on the mark, 0..1
    false_alarms: float  # the same for models without it
    empty: int  # maps without any evidence for the class, scored as noise

    @property
    def reveals(self) -> bool:
        """Is the AUC's interval above BAR, the share above the mark's area, its gain visible?"""
        return self.auc.above(BAR) and self.share.above(self.area) and self.gain >= GAIN


def audit(
    with_mark: Sequence[torch.Tensor], without: Sequence[torch.Tensor], masks: torch.Tensor
) -> Audit:
    """The auditor's test for one method.

    with_mark, without: for each model its maps (N, h, w) of the same marked images, for the class
    that the mark stands for. masks: where the mark is, bool (N, h, w). The intervals draw models
    first: many images of few models are not much evidence.
    """
    shares, hits, nothing = [], [], 0
    for group in (with_mark, without):
        maps, empty = zip(*(evidence(m, seed) for seed, m in enumerate(group)), strict=True)
        nothing += int(torch.stack(empty).sum())
        shares.append(np.stack([mass_inside(m, masks).numpy() for m in maps]))
        hits.append(float(torch.stack([pointing_game(m, masks) for m in maps]).mean()))
    between = [auc_interval(a, b, draws=1).mean for a, b in combinations(shares[1], 2)]
    return Audit(
        auc=auc_interval(*shares),
        seeds=float(np.mean([max(a, 1 - a) for a in between])) if between else 0.5,
        share=mean_interval(shares[0].mean(1)),
        gain=float(shares[0].mean() - shares[1].mean()),
        area=float(masks.float().mean()),
        hits=hits[0],
        false_alarms=hits[1],
        empty=nothing,
    )
