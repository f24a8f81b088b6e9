"""What all tests share: clean settings, stated skips, and a closing line that counts them."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
import torch
import torch.nn.functional as F
from nbformat import v4
from timm.models import VisionTransformer
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from utils import env, models

SETTINGS = "XTL_PROFILE XTL_DATA XTL_DEVICE XTL_MODEL XTL_FIGURES XTL_JOBS".split()
CHROMIUM = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
REASONS: dict[str, Callable[[], str]] = {
    "real_data": lambda: "" if (env.DATA / "cifar10").is_dir() else "data/cifar10 is absent",
    "browser": lambda: "" if shutil.which("chromium") else "the program chromium is absent",
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Unit tests see no XTL_ setting from outside; the notebooks tested after them do."""
    kept = {name: os.environ.pop(name) for name in SETTINGS if name in os.environ}
    try:
        return (yield)
    finally:
        os.environ.update(kept)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, with the reason, what this machine cannot run."""
    for marker, reason in REASONS.items():
        if item.get_closest_marker(marker) and reason():
            pytest.skip(reason())
    if item.get_closest_marker("browser") and importlib.util.find_spec("playwright") is None:
        pytest.skip("no browser: the Python package playwright is absent")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line: how many of the tests that can be skipped did run."""
    parts = []
    for marker, words in (("real_data", "real-data tests"), ("browser", "browser tests")):
        reports = [
            r
            for kind in terminalreporter.stats.values()
            for r in kind
            if hasattr(r, "skipped")
            and marker in getattr(r, "keywords", ())  # deselected ones are no reports
        ]
        skipped = {r.nodeid for r in reports if r.skipped}
        parts.append(
            f"{words}: {len({r.nodeid for r in reports} - skipped)} ran, {len(skipped)} skipped"
        )
    terminalreporter.write_line("; ".join(parts))


@pytest.fixture
def write_notebook(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a small notebook: strings are code cells, `# ...` ones Markdown."""

    def write(name: str, *cells: str | nbformat.NotebookNode, folder: Path = tmp_path) -> Path:
        made = []
        for cell in cells:
            if isinstance(cell, str):
                prose = cell.startswith("# ") and "NBVAL" not in cell
                cell = (v4.new_markdown_cell if prose else v4.new_code_cell)(cell)
            made.append(cell)
        file = folder / f"{name}.ipynb"
        file.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(v4.new_notebook(cells=made), file)
        return file

    return write


# ---------------------------------------------------------------- small models, small images
#
# Plain functions, imported by name: from utils.tests.conftest import images, tiny


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms with statistics, scales that are not zero or one: a part left out must show."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            if module.weight.abs().max() == 0:  # timm starts the last norm of a block at zero
                nn.init.uniform_(module.weight, 0.2, 0.4, generator=generator)
    return model


def tiny(kind: str = "vit", classes: int = 4, seed: int = 0, **options: object) -> nn.Module:
    """A network of random weights that explains an image in milliseconds, ready for everything.

    kind: "vit" (timm's, 2 blocks of 3 heads, 4 x 4 patches) or "resnet" (timm's, four blocks);
    options: their own. 32 pixels, eval mode.
    """
    torch.manual_seed(seed)
    if kind == "vit":
        settings = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)
        model = VisionTransformer(num_classes=classes, **settings | options)
    else:
        settings = dict(block=BasicBlock, layers=(1, 1, 1, 1), channels=(8, 16, 16, 24))
        model = randomise(ResNet(num_classes=classes, **settings | options), seed)
    model.arch, model.provenance = f"tiny {kind}", "random weights"
    model.input_size, (model.mean, model.std) = 32, models.IMAGENET
    return model.eval()


# options that cost few passes, for tests of what holds for every method
QUICK = {
    "smoothgrad": dict(samples=3),
    "integrated_gradients": dict(steps=4),
    "expected_gradients": dict(steps=1),
    "occlusion": dict(grid=3),
    "rise": dict(masks=16),
    "shapley": dict(grid=2),
}


def images(n: int = 2, size: int = 32, seed: int = 0) -> torch.Tensor:
    """Smooth random pictures, uint8 (n, 3, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(n, 3, 6, 6, generator=generator) * 255
    return F.interpolate(rough, (size, size), mode="bicubic").clamp(0, 255).to(torch.uint8)
