"""What decides a notebook's results: its code, helpers, weights, settings, versions and data."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from pathlib import Path

import nbformat

from .. import data, env

REQUIREMENTS = env.PACKAGE / "requirements.txt"


def key(file: Path, settings: dict[str, str], images: str = "") -> str:
    """A hash of everything that decides what the notebook `file` computes.

    settings: the environment variables of its kernel; images: source_hash of the data. Prose,
    comments, docstrings and layout do not count.
    """
    cells = [c.source for c in nbformat.read(file, 4).cells if c.cell_type == "code"]
    magic = [line for cell in cells for line in cell.splitlines() if line.startswith(("%", "!"))]
    code = "\n".join(
        line for cell in cells for line in cell.splitlines() if not line.startswith(("%", "!"))
    )
    surroundings = [settings, str(env.device()), env.versions(requirements()), magic, images]
    parts = [_meaning(code), json.dumps(surroundings, sort_keys=True)]
    parts += [_meaning(helper.read_text("utf-8")) for helper in sorted(helpers(code))]
    parts += [card.read_text("utf-8") for card in sorted(env.WEIGHTS.glob("*.json"))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _meaning(code: str) -> str:
    """Python code without comments, layout and docstrings."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            value = first.value if isinstance(first, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                node.body = node.body[1:]
    return ast.dump(tree)


def helpers(code: str, package: Path = env.PACKAGE) -> set[Path]:
    """The modules of `package` that some code imports, and those that they import in turn."""
    files: set[Path] = set()
    waiting = [(code, package.parent)]  # source text, and the folder that its imports start from
    while waiting:
        source, folder = waiting.pop()
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.ImportFrom):
                continue
            module = (node.module or "").split(".") if node.module else []
            if not node.level and module[:1] != [package.name]:
                continue
            base = folder.parents[node.level - 2] if node.level > 1 else folder
            base = (base if node.level else package.parent).joinpath(*module)
            for place in [base, *(base / alias.name for alias in node.names)]:
                for file in (place.with_suffix(".py"), place / "__init__.py"):
                    if file.exists() and file not in files:
                        files.add(file)
                        waiting.append((file.read_text("utf-8"), file.parent))
    return files


def requirements(file: Path = REQUIREMENTS) -> list[str]:
    """The names of the packages that a requirements file asks for."""
    lines = file.read_text("utf-8").splitlines()
    names = (re.match(r"[A-Za-z0-9._-]+", line) for line in lines)
    return sorted(name[0] for name in names if name)


def source_hash(source: str) -> str:
    """A hash of path, size and time of every file that a data source reads; "" if it has none."""
    if source.startswith("folder:"):
        return data.files_hash(source)
    folders = [env.DATA / source]
    if source == "cifar10":
        folders.append(env.DATA / "cifar-10-batches-py")
    files = sorted(f for folder in folders if folder.is_dir() for f in folder.rglob("*"))
    state = [(str(f), s.st_size, s.st_mtime_ns) for f in files if f.is_file() for s in [f.stat()]]
    return hashlib.sha256(repr(state).encode()).hexdigest() if state else ""
