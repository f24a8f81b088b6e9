"""Colab: install what the course needs and keep Colab's own torch. Imports nothing large."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

# packages that Colab has fitted to its GPUs and to each other
KEEP = ("torch", "torchvision", "torchaudio", "triton", "numpy", "pandas", "scipy", "pillow")


def ready(root: Path) -> None:
    """Make the course in `root` usable from here; called by the first cell of every notebook.

    Raises RuntimeError if another package called utils is in the way, or if what the course
    needs cannot be installed.
    """
    if Path(__file__).resolve() != (root / "utils" / "colab.py").resolve():  # a link is the same
        raise RuntimeError(
            "Another package called utils is in the way: restart the kernel, then run this cell."
        )
    if "google.colab" in sys.modules:
        install(root / "utils" / "requirements.txt")


def install(requirements: Path) -> None:
    """pip install of the requirements, with the versions of KEEP held where they are."""
    pip = [sys.executable, "-m", "pip"]
    listed = subprocess.run([*pip, "list", "--format=freeze"], capture_output=True, text=True)
    kept = [line for line in listed.stdout.splitlines() if line.split("==")[0].lower() in KEEP]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "keep.txt"
        constraints.write_text("\n".join(kept) + "\n", "utf-8")
        command = [*pip, "install", "--quiet", "-r", str(requirements), "-c", str(constraints)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        raise RuntimeError(
            f"The packages that the course needs could not be installed ({last}): check the internet "
            "connection, then run this cell again."
        )
