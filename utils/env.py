"""Where things are, which profile is on, and what this machine has."""

from __future__ import annotations

import hashlib
import os
import platform
import random
import tomllib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import nn

PACKAGE = Path(__file__).resolve().parent
WEIGHTS = PACKAGE / "weights"


def _root() -> Path:
    """The course's folder; where only the package is installed, XTL_HOME or the current folder."""
    checkout = PACKAGE.parent
    if PACKAGE.name == "utils" and (checkout / "notebooks").is_dir():
        return checkout
    return Path(os.environ.get("XTL_HOME") or Path.cwd()).resolve()


ROOT = _root()
DATA = ROOT / "data"
RUNS = ROOT / "runs"
FIGURES = ROOT / "figures"

PACKAGES = ["torch", "torchvision", "timm", "captum", "grad-cam", "ipywidgets", "jupyterlab"]
COMMITTED = {"demo": "CIFAR-10 (JPEG copy)"}  # profile: the data of its results in the repository
FOUND: dict[str, str] = {}  # "auto" or "cifar10": the images it stood for, noted by data.load


def address(root: Path = ROOT) -> str:
    """The public git address, [project.urls] Repository in pyproject.toml; empty if it is not set."""
    file = root / "pyproject.toml"
    project = tomllib.loads(file.read_text("utf-8")).get("project", {}) if file.exists() else {}
    return project.get("urls", {}).get("Repository", "")


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
        """Where this profile's figures and results lie: a folder of its own for each data set.

        figures/<profile> is for the data whose results are committed (without such: the
        profile's own data), figures/<profile>-<data> for all other. `make report` sets
        XTL_FIGURES, so that its notebooks agree.
        """
        folder = os.environ.get("XTL_FIGURES", "")
        if folder.partition("-")[0] == self.name:
            return FIGURES / folder
        return FIGURES / self.folder(FOUND.get(self.source, ""))

    def folder(self, label: str = "") -> str:
        """The name of the figures' folder; label: which images "auto" or "cifar10" stood for."""
        if self.source not in ("auto", "cifar10"):
            own = self.source == PROFILES[self.name].source
            return self.name if own else f"{self.name}-{_slug(self.source)}"
        committed = COMMITTED.get(self.name, label)
        if not label or (label == committed and label.startswith("CIFAR-10")):
            return self.name
        return f"{self.name}-{_slug(label)}"


def _slug(source: str) -> str:
    """A data source as part of a folder name: lower case, letters and digits; paths keep apart."""
    words = "".join(c for c in source.lower() if c.isascii() and c.isalnum())
    if not source.startswith("folder:"):
        return words
    place = str(Path(source.removeprefix("folder:")).expanduser().resolve())
    name = "".join(c for c in Path(place).name.lower() if c.isascii() and c.isalnum())
    return f"{name or 'folder'}-{hashlib.sha256(place.encode()).hexdigest()[:6]}"


_SLIM: dict[str, Any] = dict(cnn="resnet34_slim", vit="vit_mini", baseline="alexnet_slim")
_HUB: dict[str, Any] = dict(
    cnn="resnet34", vit="vit_base_patch16_224.augreg_in21k", baseline="alexnet"
)
PROFILES = {
    "smoke": Profile("smoke", "shapes10", 120, 30, 50, **_SLIM),
    "demo": Profile("demo", "auto", 4050, 450, 2500, **_SLIM),
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
    source = os.environ.get("XTL_DATA") or PROFILES[name].source
    return replace(PROFILES[name], source=source)


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


def precision(device: torch.device) -> torch.dtype:
    """The fastest type that is precise enough for training on a device.

    bfloat16 on GPUs of compute capability 8.0 (Ampere, 2020) and later, float16 on older ones,
    float32 elsewhere.
    """
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def autocast(device: torch.device) -> AbstractContextManager:
    """A context in which models compute in the device's precision()."""
    dtype = precision(device)
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices), and keep cuDNN to repeatable algorithms."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True


def write(file: Path, content: str | bytes) -> Path:
    """Write a file so that a kill at any moment leaves the old content or the new one; the file.

    Makes the folder if it is not there; text is written as UTF-8 with newline line ends. Raises
    OSError, in one sentence, if the disk is full or the place cannot be written to; the former
    content stays.
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


def fingerprint(*things: nn.Module | torch.Tensor) -> str:
    """A short hash of models' weights and of tensors, so that other ones are seen to be others."""
    digest = hashlib.sha256()
    for thing in things:
        tensors = thing.state_dict().values() if isinstance(thing, nn.Module) else [thing]
        for tensor in tensors:
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def alone(what: Path) -> Iterator[None]:
    """Inside, this process is the only one here that works on the file or folder `what`.

    Others wait at the same line until it is through; a process that dies lets them in.
    """
    name = hashlib.sha256(str(what.resolve()).encode()).hexdigest()[:16]
    lock = RUNS / "locks" / f"{name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield


def versions(packages: list[str] | None = None) -> dict[str, str]:
    """Installed versions of Python and of packages, by default those that decide the results."""
    installed = {"python": platform.python_version()}
    for package in packages or PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "not installed"
    return installed


def device_name() -> str:
    """The accelerator's product name, or `CPU` with the number of threads torch uses."""
    if device().type == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s'[: threads != 1]}"
