"""One training loop for every objective, resumable at any step.

A Task says what a batch costs and how a model is validated; run() does the rest: order of the
images, learning rate, precision, moving average, checkpoints, curves, several processes. Order and
randomness of a step depend on the seed and the step alone, so a run that was stopped and taken up
again ends with the weights of one that was not.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from .. import models
from ..env import autocast, device, fingerprint, precision
from . import processes
from .checkpoint import State
from .modes import recomputed_statistics, train_mode, unchanged
from .recipes import Recipe, build_optimizer, learning_rate, moving_average
from .task import Batch, Task

SAVE_EVERY = 100  # steps between checkpoints inside an epoch
WINDOW = 20  # steps whose median loss is compared with the start
RISE = 10.0  # a loss this many times higher than at the start comes from lost weights


@dataclass
class Run:
    """A finished run."""

    records: dict[str, torch.Tensor]  # float32, one value a step or an epoch
    steps: int  # in an epoch
    seconds: float
    judged: nn.Module  # the module that was trained, or its moving average


def run(task: Task, images: torch.Tensor, recipe: Recipe, run_dir: Path) -> Run:
    """Train task.module on uint8 images (N, 3, h, w) by the recipe.

    Goes on with run_dir/last.safetensors if that is an unfinished run of the same data, recipe,
    initial weights and trainable parameters. If anything stops it, Ctrl-C included, the module
    gets back the weights and modes it came with. Raises ValueError if there are too few images,
    FloatingPointError if the loss explodes or is not a number, RuntimeError if a batch does not
    fit into the GPU's memory.
    """
    modes = {module: module.training for module in task.module.modules()}
    initial = {k: v.detach().cpu().clone() for k, v in task.module.state_dict().items()}
    try:
        return _Loop(task, images, recipe, Path(run_dir), initial).run()
    except BaseException:
        task.module.load_state_dict(initial)
        for module, training in modes.items():
            module.training = training
        raise
    finally:
        task.end()


def explosion(losses: torch.Tensor, guess: float = 0.0) -> int | None:
    """The first step at which the losses (S,) are lost, or None.

    That is one whose loss is not finite; or, if the median of the last steps is 10 times higher
    than the first loss and the guess, the first one above that. A large first loss is no explosion.
    """
    bad = torch.nonzero(~losses.isfinite())
    if not len(bad) and len(losses) > 2:
        bound = RISE * max(losses[0].item(), guess)
        if losses[-min(WINDOW, len(losses) // 2) :].median() > bound:
            bad = torch.nonzero(losses > bound)
    return int(bad[0]) if len(bad) else None


class _Loop:
    """The state of one run."""

    def __init__(self, task: Task, images: torch.Tensor, recipe: Recipe, run_dir: Path, initial):
        self.task, self.recipe = task, recipe
        n, rest = divmod(len(images), recipe.batch)
        self.steps = n + (rest >= max(1, task.smallest))
        if not self.steps:
            raise ValueError(
                f"{len(images)} images are fewer than a batch of {recipe.batch}: "
                "lower recipe.batch."
            )
        self.total = recipe.epochs * self.steps
        self.device = device()
        module = task.module.to(self.device)
        module.to(memory_format=models.memory_format(module))
        self.average = moving_average(module, recipe)
        self.judged = self.average.module if self.average else module
        self.optimizer = build_optimizer(module, recipe)
        self.scales = [group.get("lr_scale", 1.0) for group in self.optimizer.param_groups]
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=precision(self.device) is torch.float16
        )
        self.images = images.to(self.device) if self.device.type == "cuda" else images
        self.records = {key: torch.zeros(self.total) for key in task.per_step}
        self.records |= {key: torch.zeros(recipe.epochs) for key in task.per_epoch}
        frozen = [key for key, p in module.named_parameters() if not p.requires_grad]
        facts = task.facts | {
            "recipe": asdict(recipe),
            "initial weights": fingerprint(*initial.values()),
            "frozen parameters": frozen,
        }
        kept = nn.ModuleList([module, self.judged]) if self.average else module
        self.state = State(run_dir / "last.safetensors", kept, self.optimizer, self.scaler, facts)
        self.run_dir = run_dir

    def run(self) -> Run:
        """All steps that are still to do."""
        task, rank = self.task, processes.rank()
        first, spent = self.state.load(self.records)
        if not first:
            task.begin()
            if self.average:
                self.average.set(task.module)
        self.network = processes.joined(task.module) if task.shared else task.module
        self.recomputed = recomputed_statistics(task.module)
        self.live = {  # on the device, this process's share: no synchronisation in a step
            key: self.records[key].to(self.device) * (rank == 0) for key in task.per_step
        }
        begun, saved, step = time.perf_counter() - spent, first, first
        bar = tqdm(total=self.total, initial=first, desc=task.name, unit="step", mininterval=1.0)
        bar.disable |= rank > 0
        try:
            for step in range(first, self.total):
                epoch, place = divmod(step, self.steps)
                if place == 0 or step == first:
                    self._begin_epoch(epoch)
                self._step(step, place)
                bar.update()
                ends = place == self.steps - 1
                if ends or (place + 1) % SAVE_EVERY == 0:
                    self._gather(step)
                    if ends:
                        bar.set_postfix(self._end_epoch(epoch))
                    if rank == 0:
                        self.state.save(step + 1, self.records, time.perf_counter() - begun)
                    saved = step + 1
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"{task.name} was stopped at step {step} of {self.total}; "
                f"the same command goes on from step {saved}."
            ) from None
        finally:
            bar.close()
        seconds = time.perf_counter() - begun
        processes.wait()
        return Run(self.records, self.steps, seconds, self.judged)

    def _begin_epoch(self, epoch: int) -> None:
        generator = torch.Generator().manual_seed(self.recipe.seed * 1000 + epoch)
        self.order = torch.randperm(len(self.images), generator=generator).to(self.device)
        self.task.begin_epoch(epoch)
        train_mode(self.task.module)

    def _batch(self, step: int, place: int) -> tuple[Batch, float]:
        """The step's batch, and which part of it is this process's."""
        seed = self.recipe.seed * 1_000_003 + step
        torch.manual_seed(seed)  # dropout repeats after a resume
        indices = self.order[place * self.recipe.batch : (place + 1) * self.recipe.batch]
        mine, share = slice(None), float(processes.rank() == 0)
        if self.task.shared:
            mine, share = processes.share(len(indices))
        generator = torch.Generator().manual_seed(seed)
        return Batch(indices, self.images[indices], generator, mine), share

    def _step(self, step: int, place: int) -> None:
        """One batch: loss, gradients, update."""
        batch, share = self._batch(step, place)
        for group, scale in zip(self.optimizer.param_groups, self.scales, strict=True):
            group["lr"] = learning_rate(self.recipe, step, self.steps) * scale
        try:
            with autocast(self.device):
                values = self.task.measure(self.network, batch)
            self.optimizer.zero_grad(set_to_none=True)
            # gradients are averaged over the processes that share a batch
            factor = share * processes.size() if self.task.shared else 1.0
            with unchanged(self.recomputed):
                self.scaler.scale(values["loss"] * factor).backward()
        except torch.cuda.OutOfMemoryError:
            raise RuntimeError(
                f"A batch of {len(batch.indices)} images does not fit into the GPU's memory: "
                "give a recipe with a smaller batch or choose a smaller profile."
            ) from None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update(self.task.module, step)
        for key in self.task.per_step:
            self.live[key][step] = values[key].detach() * share

    def _gather(self, step: int) -> None:
        """The curves of all processes up to this step. FloatingPointError if they explode."""
        for key, values in self.live.items():
            self.records[key].copy_(processes.total(values))
        bad = explosion(self.records["loss"][: step + 1], self.task.guess)
        if bad is not None:
            loss = self.records["loss"]
            raise FloatingPointError(
                f"The loss is {loss[bad].item():.3g} at batch {bad} (it began at "
                f"{loss[0].item():.3g}): lower the learning rate (now {self.recipe.lr}). "
                f"The state before it is kept in {self.state.file.name}."
            )

    def _end_epoch(self, epoch: int) -> dict[str, str]:
        """Validate, keep and log; what the progress bar shows."""
        for key, value in self.task.validate(self.judged, epoch).items():
            self.records[key][epoch] = value
        if processes.rank() == 0:
            self.task.keep(self.judged, epoch, self.records)
            self._log(epoch)
        last = self.records["loss"][epoch * self.steps : (epoch + 1) * self.steps].mean()
        shown = {key: f"{self.records[key][epoch]:.3f}" for key in self.task.per_epoch}
        return {"loss": f"{last:.3f}"} | shown

    def _log(self, epoch: int) -> None:
        """One epoch's curves for TensorBoard."""
        from torch.utils.tensorboard import SummaryWriter

        first, end = epoch * self.steps, (epoch + 1) * self.steps
        with SummaryWriter(self.run_dir / "tensorboard", purge_step=first) as writer:
            for key in self.task.per_step:
                for step in range(first, end):
                    writer.add_scalar(f"train/{key}", self.records[key][step], step)
            for key in self.task.per_epoch:
                writer.add_scalar(key.replace("_", "/"), self.records[key][epoch], end - 1)
