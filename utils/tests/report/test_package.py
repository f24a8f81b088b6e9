"""The wheel: the library under the name xtl, with the course weights, without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from utils import env

EXPLAIN = """
import sys
assert "utils" not in sys.modules
import torch
from xtl import env, explain, models
assert "utils" not in sys.modules
model = models.build("vit_mini", 10, "course", keep_head=True)
images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
print(tuple(explain.explain(model, images, method="lrp").shape), env.ROOT, env.WEIGHTS.name)
"""


def test_every_package_is_listed() -> None:
    listed = tomllib.loads((env.ROOT / "pyproject.toml").read_text("utf-8"))
    names = {"xtl" if f.parent == env.PACKAGE else f"xtl.{f.parent.name}" for f in doors()}
    assert set(listed["tool"]["setuptools"]["packages"]) == names


def doors() -> list[Path]:
    """Every __init__.py of the package, tests left out."""
    files = env.PACKAGE.rglob("__init__.py")
    return [f for f in files if "tests" not in f.relative_to(env.PACKAGE).parts]


@pytest.mark.slow
def test_the_wheel_explains_an_image(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(env.ROOT / name, source)
    ignored = shutil.ignore_patterns("tests", "__pycache__")
    shutil.copytree(env.PACKAGE, source / "utils", ignore=ignored)
    words = [sys.executable, "-m", "uv", "build", "--wheel", "--no-build-isolation", "--offline"]
    words += ["--quiet", "--python", sys.executable, "--out-dir", str(tmp_path), str(source)]
    built = subprocess.run(words, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    place = tmp_path / "installed"
    zipfile.ZipFile(next(tmp_path.glob("xtl-*.whl"))).extractall(place)
    names = {f.name for f in (place / "xtl" / "weights").iterdir()}
    assert names == {f.name for f in env.WEIGHTS.iterdir()}
    assert not (place / "xtl" / "tests").exists()
    home = tmp_path / "home"
    home.mkdir()
    settings = {k: v for k, v in os.environ.items() if not k.startswith("XTL_")}
    settings |= {"PYTHONPATH": str(place), "XTL_HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", EXPLAIN], cwd=tmp_path, env=settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[-2] == f"(2, 32, 32) {home.resolve()} weights"
