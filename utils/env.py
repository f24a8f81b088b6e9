"""Where things are, which profile is on, and what this machine has."""

from __future__ import annotations

import os
import platform
import random
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

REPO = "OWNER/explainable-transfer-learning"  # the public address, in this one place

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
RUNS = ROOT / "runs"
FIGURES = ROOT / "figures"
WEIGHTS = ROOT / "utils" / "weights"

PACKAGES = ["torch", "torchvision", "timm", "captum", "grad-cam", "ipywidgets", "jupyterlab"]


@dataclass(frozen=True)
class Profile:
    """One size of the course: which data, how much of it, and which models."""

    name: str
    source: str  # what data.load() is asked for
    n_train: int
    n_val: int
    n_test: int
    cnn: str
    vit: str
    baseline: str
    seed: int = 0

    @property
    def device(self) -> torch.device:
        return device()

    @property
    def figures(self) -> Path:
        return FIGURES / self.name


_SLIM = dict(cnn="resnet34_slim", vit="vit_mini", baseline="alexnet_slim")
_HUB = dict(cnn="resnet34", vit="vit_base_patch16_224.augreg_in21k", baseline="alexnet")
PROFILES = {
    "smoke": Profile("smoke", "shapes10", 120, 30, 50, **_SLIM),
    "demo": Profile("demo", "auto", 2000, 250, 1000, **_SLIM),
    "paper": Profile("paper", "auto", 4050, 450, 2500, **_HUB),
    "full": Profile("full", "auto", 45000, 5000, 10000, **_HUB),
}


def profile(name: str | None = None) -> Profile:
    """The profile called `name`, else the one in XTL_PROFILE, else `auto`.

    `auto` is `paper` where there is a CUDA device and `demo` elsewhere. XTL_DATA, if set,
    replaces the profile's data source. Raises ValueError for an unknown name.
    """
    name = name or os.environ.get("XTL_PROFILE") or "auto"
    if name == "auto":
        name = "paper" if torch.cuda.is_available() else "demo"
    if name not in PROFILES:
        raise ValueError(
            f"There is no profile {name!r}: set XTL_PROFILE to auto, {', '.join(PROFILES)}."
        )
    chosen = PROFILES[name]
    return replace(chosen, source=os.environ.get("XTL_DATA") or chosen.source)


def device(name: str | None = None) -> torch.device:
    """The device called `name`, else XTL_DEVICE, else CUDA where there is one, else the CPU.

    Raises RuntimeError if CUDA is asked for by name and absent.
    """
    own = (
        f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"
    )  # one for each process
    name = name or os.environ.get("XTL_DEVICE") or (own if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeError(
            f"The device {name!r} was asked for, but torch finds no CUDA GPU here: "
            "unset XTL_DEVICE to use the CPU, or choose a GPU runtime."
        )
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"There is no device {name!r}: set XTL_DEVICE to cpu or cuda, or unset it."
        ) from error


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices), and keep cuDNN to repeatable algorithms."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True


def write(file: Path, content: str | bytes) -> Path:
    """Write a file so that a kill at any moment leaves the old content or the new one; the file.

    Makes the folder if it is not there; text is written as UTF-8 with newline line ends. Raises OSError, in one sentence, if the disk is full
    or the place cannot be written to; the former content stays.
    """
    raw = content.encode("utf-8") if isinstance(content, str) else content
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as handle:
            handle.write(raw)
            os.fsync(handle.fileno())
        os.replace(part, file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(
            f"{file.name} could not be written ({error}): free some disk space and run again; "
            "what was there before is intact."
        ) from error
    return file


def versions() -> dict[str, str]:
    """Installed versions of Python and the packages that decide the results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def device_name() -> str:
    """The accelerator's product name, or `CPU` with the number of threads torch uses."""
    if device().type == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"
