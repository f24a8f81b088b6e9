"""One setting is the public address; `make address` writes it everywhere, in a copy here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from utils import env
from utils.report import address, notebooks
from utils.report.__main__ import main

FILES = ("pyproject.toml", "README.md")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of everything that the address is written into."""
    for name in FILES:
        shutil.copy(env.ROOT / name, tmp_path)
    shutil.copytree(
        env.ROOT / "notebooks",
        tmp_path / "notebooks",
        ignore=shutil.ignore_patterns(".ipynb_checkpoints"),
    )
    return tmp_path


def texts(folder: Path) -> dict[str, str]:
    files = [folder / name for name in FILES] + sorted((folder / "notebooks").glob("*.ipynb"))
    return {file.name: file.read_text("utf-8") for file in files}


def test_the_address_goes_everywhere_and_away_again(copy: Path) -> None:
    address.write("", copy)
    plain = texts(copy)
    assert not [name for name, text in plain.items() if "colab-badge" in text]
    address.write("someone/a-course", copy)
    here = "https://github.com/someone/a-course"
    assert env.address(copy) == here
    badges = "https://colab.research.google.com/github/someone/a-course/blob/main/notebooks/"
    for name, text in texts(copy).items():
        assert (badges if name.endswith(("ipynb", "README.md")) else here) in text, name
    assert address.write("someone/a-course", copy) == []
    address.write("other/name", copy)
    assert not [name for name, text in texts(copy).items() if "someone" in text]
    address.write("", copy)
    assert texts(copy) == plain


def test_nothing_names_an_owner_that_is_not_there() -> None:
    assert not [name for name, text in texts(env.ROOT).items() if "OWNER" in text]


def test_every_notebook_has_the_set_up_cell() -> None:
    cell = notebooks.SETUP.format(address=env.address())
    for file in sorted((env.ROOT / "notebooks").glob("*.ipynb")):
        sources = [c.source for c in nbformat.read(file, 4).cells]
        assert sources.count(cell) == 1, f"{file.name}: run make address"


def test_a_strange_address_is_one_sentence(copy: Path) -> None:
    before = texts(copy)
    with pytest.raises(ValueError, match="'name' is not an address: give REPO=name/project"):
        address.write("name", copy)
    with pytest.raises(SystemExit, match="is not an address"):
        main(["address", "git@host:x"])
    assert texts(copy) == before


STAND_IN = """
import sys, types
sys.modules["google"] = types.ModuleType("google")
sys.modules["google.colab"] = types.ModuleType("google.colab")
import subprocess
run, asked = subprocess.run, []
def no_install(command, **more):
    if "install" in command:
        asked.append((command, open(command[-1]).read()))
        command = [sys.executable, "-c", ""]
    return run(command, **more)
subprocess.run = no_install
exec(open(sys.argv[1]).read())
from utils import env
print(root == env.ROOT, len(asked), "torch==" in asked[0][1], "nbclient" in asked[0][1])
"""


def colab(folder: Path, repo: str) -> subprocess.CompletedProcess:
    """The set-up cell, run as in Colab: a stand-in google.colab, no course around."""
    (folder / "cell.py").write_text(notebooks.SETUP.format(address=""))
    settings = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"XTL_REPO": repo}
    words = [sys.executable, "-c", STAND_IN, "cell.py"]
    return subprocess.run(words, cwd=folder, env=settings, capture_output=True, text=True)


def test_colab_clones_the_course_and_keeps_its_torch(tmp_path: Path) -> None:
    origin, content = tmp_path / "origin", tmp_path / "content" / "inner"
    content.mkdir(parents=True)
    (origin / "utils").mkdir(parents=True)
    (origin / "notebooks").mkdir()
    (origin / "notebooks" / "00_a.ipynb").touch()
    for name in ("__init__.py", "colab.py", "env.py", "requirements.txt"):
        shutil.copy(env.PACKAGE / name, origin / "utils")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], cwd=origin, check=True)
    done = colab(content, f"file://{origin}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "1", "True", "False"]


def test_colab_without_an_address_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    done = colab(tmp_path / "inner", "")
    assert done.returncode and done.stderr.strip() == (
        "Upload the whole folder as course/, or set XTL_REPO to its git address."
    )
