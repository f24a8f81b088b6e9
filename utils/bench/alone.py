"""Random models and images to measure with, and one case alone in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import torch
from torch import nn

from .. import env, explain, models
from ..explain import iav
from . import measure


def here(task: str, n: int, steps: int, device: torch.device) -> dict[str, float]:
    """Extra bytes and seconds of one case in this process, after a small call of the same kind."""
    model = models.build("vit_mini", 10, "none").to(device)
    run = {
        "ig": lambda x, s: explain.integrated_gradients(model, x, 0, steps=s),
        "iav": lambda x, s: iav.ia_scores(model, x, torch.ones(len(x), 8, 8)),
    }[task]
    images = images_of(n, 32)
    run(images[:1], 1)
    held, seconds = measure.memory(lambda: run(images, steps), device)
    return {"bytes": max(1, held), "seconds": seconds}


def fresh(task: str, n: int, steps: int, device: torch.device) -> dict[str, float]:
    """The same in a process of its own."""
    words = f"-m utils.bench --device {device} --case {task} {n} {steps}".split()
    # glibc keeps freed memory for later; told not to, what is resident is what is in use
    frugal = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    words, surroundings = [sys.executable, *words], os.environ | frugal
    done = subprocess.run(words, cwd=env.ROOT, env=surroundings, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"Measuring {task} alone failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def images_of(n: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)


def model_of(
    arch: str, device: torch.device, n: int
) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Random weights in eval mode, input (n, 3, H, W) and targets (n,)."""
    torch.manual_seed(0)
    model = models.build(arch, 10, "none").to(device)
    x = models.prepare(model, images_of(n, model.input_size))
    return model, x, torch.arange(n, device=device) % 10
