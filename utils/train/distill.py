"""Course weights "imagenet": small networks that learn the features of an ImageNet network."""

from __future__ import annotations

from dataclasses import asdict, replace

import torch
import torch.nn.functional as F
from torch import nn

from .. import data, models
from ..env import RUNS, profile, seed_everything
from . import pretrain, probe, selfsup
from .arithmetic import bfloat16_helps, quick_arithmetic
from .recipes import Recipe, phase
from .teacher import SIZE, stored_features


def standardisation(
    features: torch.Tensor, sample: int = 4000
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (C,) of features (N, ..., C), from about `sample` rows."""
    rows = features[:: max(1, len(features) // sample)].float().flatten(0, -2)
    return rows.mean(0), rows.std(0) + 1e-6


class Distillation(nn.Module):
    """An encoder without its head that learns what the teacher computes from the same images.

    Three losses are added. Dense: a linear layer predicts the teacher's features of each cell.
    Pooled: another predicts its 1,280 pooled features from the whole image. Both targets are
    standardised and compared by the smooth L1 loss. Probabilities: the predicted pooled features
    go through the teacher's own classifier, and the cross-entropy with its probabilities of the
    1,000 ImageNet classes counts with `weight` (Yang et al. 2021, "Knowledge distillation via
    softmax regression representation learning"). Both logits are multiplied by `sharpness`,
    because the teacher is unsure about enlarged small images.

    forward(images, rows int64 (B,), generator) gives the loss; rows say which of the stored
    features belong to the images. Each image is mirrored with probability 1/2. The recipe's
    phases decide which share of its patches a ViT does not see, and how many pixels a CNN's input
    has.
    """

    def __init__(
        self,
        encoder: nn.Module,
        dense: torch.Tensor,
        pooled: torch.Tensor,
        classifier: nn.Linear,
        weight: float = 0.5,
        sharpness: float = 2.0,
        new: bool = True,
    ):
        super().__init__()
        encoder.reset_classifier(0)
        self.encoder, self.weight, self.sharpness = encoder, weight, sharpness
        self.drop, self.size = 0.0, encoder.input_size
        self.dense, self.pooled = dense, pooled
        self.is_vit = hasattr(encoder, "patch_embed")
        if self.is_vit:
            for block in encoder.blocks:  # in bfloat16 on a CPU the fused kernel's backward is slow
                block.attn.fused_attn = False
            if new:  # a good start for the positions
                grid = selfsup.sincos(encoder.patch_embed.grid_size, encoder.embed_dim)
                encoder.pos_embed.data[:, 1:] = grid
        width = encoder.num_features
        cells = width if self.is_vit else encoder.feature_info[-2]["num_chs"]
        self.to_dense = nn.Linear(cells, dense.shape[-1])
        self.to_pooled = nn.Linear(width, pooled.shape[-1])
        fixed = {
            "dense_scale": torch.stack(standardisation(dense[0])),
            "pooled_scale": torch.stack(standardisation(pooled[0])),
            "class_weight": classifier.weight.detach().clone(),
            "class_bias": classifier.bias.detach().clone(),
        }
        for name, tensor in fixed.items():
            self.register_buffer(name, tensor, persistent=False)

    def begin_epoch(self, recipe: Recipe, epoch: int) -> None:
        """Set the share of patches left out, and the pixels of the input, of this epoch."""
        self.drop = phase(recipe.patch_drop, epoch, 0.0)
        self.size = int(phase(recipe.sizes, epoch, self.encoder.input_size))

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that are no matrices (timm asks for them)."""
        return {
            n for n, p in self.named_parameters() if n.endswith(("_embed", "_token")) or p.ndim < 2
        }

    def targets(
        self, rows: torch.Tensor, mirror: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Standardised dense (B, 64, C) and pooled (B, 1280) targets; mirror: bool (B,)."""
        view, where = mirror.long(), self.dense_scale.device
        dense, pooled = (f[view, rows].float().to(where) for f in (self.dense, self.pooled))
        dense, pooled = (
            (f - mean) / std
            for f, (mean, std) in ((dense, self.dense_scale), (pooled, self.pooled_scale))
        )
        return dense, pooled

    def _vit(self, x: torch.Tensor, dense: torch.Tensor, generator: torch.Generator) -> tuple:
        """Features of visible cells, their targets, and the CLS token."""
        kept, patches = None, dense.shape[1]
        if self.drop:
            kept, _ = selfsup.random_mask(
                len(x), patches, round((1 - self.drop) * patches), generator
            )
            kept = kept.to(x.device)
            dense = dense.gather(1, kept[:, :, None].expand(-1, -1, dense.shape[2]))
        tokens = selfsup.encode(self.encoder, x, kept)
        return tokens[:, 1:], dense, tokens[:, 0]

    def _cnn(self, x: torch.Tensor, dense: torch.Tensor) -> tuple:
        """Features of the third stage's cells, targets averaged over these, pooled features."""
        net = self.encoder
        x = net.layer2(net.layer1(net.maxpool(net.act1(net.bn1(net.conv1(x))))))
        cells = net.layer3(x)
        side = round(dense.shape[1] ** 0.5)
        target = dense.transpose(1, 2).unflatten(2, (side, side))
        target = F.adaptive_avg_pool2d(target, cells.shape[-2:]).flatten(2).transpose(1, 2)
        return cells.flatten(2).transpose(1, 2), target, net.layer4(cells).mean((2, 3))

    def forward(
        self, pixels: torch.Tensor, rows: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """The loss of uint8 images (B, 3, h, w), which are the rows int64 (B,) of all images."""
        mirror = torch.rand(len(rows), generator=generator) < 0.5
        pixels = torch.where(mirror.to(pixels.device)[:, None, None, None], pixels.flip(3), pixels)
        dense, pooled = self.targets(rows.cpu(), mirror)
        x = models.prepare(self.encoder, pixels, self.size)
        x = x.contiguous(memory_format=models.memory_format(self.encoder))
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16_helps(x.device)):
            cells, dense, whole = (
                self._vit(x, dense, generator) if self.is_vit else self._cnn(x, dense)
            )
            cells, whole = self.to_dense(cells), self.to_pooled(whole)
            mean, std = self.pooled_scale
            logits, truth = (
                F.linear(f * std + mean, self.class_weight, self.class_bias)
                for f in (whole, pooled)
            )
        logits, truth = (self.sharpness * t.float() for t in (logits, truth))
        likely = F.cross_entropy(logits, truth.softmax(1))
        return (
            F.smooth_l1_loss(cells.float(), dense)
            + F.smooth_l1_loss(whole.float(), pooled)
            + self.weight * likely
        )


# ---------------------------------------------------------------- the weights and their card


def probe_accuracy(
    model: nn.Module, sizes: tuple[int, ...] = (2000, 4050), n_test: int = 4000
) -> dict[str, float]:
    """Test accuracy (0..1) of a linear probe for each number of labelled images, as {"2000": ...}.

    The images are the first ones of the published training split, which lies in CIFAR-10's first
    5,000 training images; the test images are the first `n_test`.
    """
    train_set = data.splits(replace(profile("paper"), source="cifar10")).train
    test = data.load("cifar10", "test")
    images, labels = test.images[:n_test], test.labels[:n_test]
    with quick_arithmetic(model):
        known, new = (probe.frozen_features(model, part) for part in (train_set.images, images))
    return {str(n): probe.linear_probe(known[:n], train_set.labels[:n], new, labels) for n in sizes}


def distil(arch: str, recipe: Recipe, command: str, start: str = "none") -> dict:
    """Make the course weights utils/weights/<arch>.imagenet.{safetensors,json} and return the card.

    A student of the teacher on CIFAR-10's last 45,000 training images, without their labels;
    float16, encoder only. An earlier, unfinished run of the same recipe goes on. command: the
    line that was typed. start: "course:imagenet" goes on from those weights, and the card then
    lists both phases. Raises ModuleNotFoundError if the teacher's package is missing.
    """
    whole = data.load("cifar10", "train")
    pool = whole.images[data.PAPER_POOL :]
    classifier = models.imagenet().classifier
    dense, pooled = stored_features(pool, RUNS / "distil" / "teacher")
    seed_everything(recipe.seed)
    before = probe_accuracy(models.build(arch, len(whole.classes), "none"))
    seed_everything(recipe.seed)
    earlier = models.card(arch, "imagenet")["phases"] if start != "none" else []
    model = models.build(arch, len(whole.classes), start)
    student = Distillation(model, dense, pooled, classifier, new=not earlier)
    folder = RUNS / "distil" / (f"{arch}-{len(earlier)}" if earlier else arch)
    history = pretrain.learn(student, pool, recipe, folder, pretrain.Lessons)
    file = pretrain.ship(model, f"{arch}.imagenet")
    after = probe_accuracy(model)
    last = history["loss"][-100:]
    phase = {
        "command": command,
        "recipe": asdict(recipe),
        "minutes": round(history["seconds"] / 60, 1),
        "loss": sum(last) / len(last),
    }
    facts = {
        "classes": [],
        "pretraining": "imagenet",
        "data": f"{whole.source}, training images 5,000 to 49,999, without labels",
        "labels": "No CIFAR-10 label was used; "
        "the teacher learned from ImageNet's images and labels.",
        "teacher": f"EfficientNet-Lite0 (ImageNet) from the package {models.PACKAGE}, at {SIZE} pixels",
        "probe_accuracy": after,
        "probe_accuracy_random_weights": before,
        "test_accuracy": after["4050"],
        "test_images": 4000,
        "test_accuracy_of": "logistic regression on frozen, standardised features of 4,050 images",
        "summary": f"distilled from EfficientNet-Lite0 (ImageNet) on {len(pool):,} CIFAR-10 images "
        f"without labels; a linear probe on 4,050 images classifies {after['4050']:.1%} of 4,000 "
        f"test images correctly ({before['4050']:.1%} from random weights)",
    }
    return pretrain.write_card(file, arch, facts, [*earlier, phase], recipe, len(pool))
