"""The public address of the course: one setting, written into everything that needs it."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

from .. import env
from . import notebooks, readme


def write(repo: str, root: Path = env.ROOT) -> list[str]:
    """Make `repo` the public address; the files that changed.

    repo: "name/project" on GitHub, another https address that git can clone, or "" for none.
    Written into pyproject.toml, README.md, and every notebook's set-up cell and
    badge. Raises ValueError for anything else.
    """
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        repo = f"https://github.com/{repo}"
    if repo and not re.fullmatch(r"https://[^\s\"']+", repo):
        raise ValueError(
            f"{repo!r} is not an address: give REPO=name/project, or an https address."
        )
    texts = {
        root / "pyproject.toml": lambda text: _project(text, repo),
        root / "README.md": lambda text: readme.addressed(text, repo),
    }
    changed = [file.name for file, edit in texts.items() if _edit(file, edit)]
    for file in sorted((root / "notebooks").glob("*.ipynb")):
        if stamp(file, repo):
            changed.append(file.name)
    return changed


def stamp(file: Path, repo: str) -> bool:
    """Write the address into a notebook's badge and set-up cell; whether that changed it."""
    notebook = nbformat.read(file, 4)
    before = nbformat.writes(notebook)
    notebooks.stamp(notebook, file.stem, repo)
    after = nbformat.writes(notebook)
    if after != before:
        env.write(file, after + "\n")
    return after != before


def _edit(file: Path, edit) -> bool:
    before = file.read_text("utf-8")
    after = edit(before)
    if after != before:
        env.write(file, after)
    return after != before


def _project(text: str, repo: str) -> str:
    text = re.sub(r"\n\[project\.urls\]\n(?:[^\[\n].*\n)*", "\n", text)
    if not repo:
        return re.sub(r"\n{3,}", "\n\n", text)
    urls = f'[project.urls]\nRepository = "{repo}"\n'
    return re.sub(
        r"\n+(?=\[project\.optional|\[build-system\]|\[tool\.)", f"\n\n{urls}\n", text, count=1
    )
