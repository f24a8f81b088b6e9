"""Whole runs in clones of their own: repeated, they write the same numbers; killed, they go on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from utils import env

SERIAL = {"XTL_JOBS": "1"}
RUN = [sys.executable, "-c", "from utils.report import course; course.run_course('smoke')"]


def clone(folder: Path) -> Path:
    """The helpers without their tests, and no notebook yet."""
    shutil.copytree(
        env.ROOT / "utils", folder / "utils", ignore=shutil.ignore_patterns("tests", "__pycache__")
    )
    (folder / "notebooks").mkdir()
    return folder


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    """Training and relevance of both models, twice from nothing: the same results.json to the last byte."""
    written = []
    for name in ("one", "two"):
        folder = clone(tmp_path / name)
        shutil.copy(env.ROOT / "notebooks" / "06_lrp.ipynb", folder / "notebooks")
        done = subprocess.run(RUN, cwd=folder, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-2000:]
        written.append((folder / "figures" / "smoke" / "results.json").read_bytes())
    assert written[0].count(b"resnet.") > 3 and b"vit.conservation_error" in written[0]
    assert written[0] == written[1]


@pytest.mark.slow
def test_a_killed_report_repeats_only_what_was_not_finished(tmp_path: Path) -> None:
    """SIGKILL between two notebooks and inside one."""
    folder = clone(tmp_path / "course")
    log = folder / "log"
    for stem in ("01_a", "02_b", "03_c"):
        cells = [
            f"from pathlib import Path\nlog = Path('../log').open('a'); log.write('{stem} begins\\n'); log.flush()",
            "import time; time.sleep(3)",
            f"log.write('{stem} ends\\n'); log.flush()",
        ]
        notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells])
        nbformat.write(notebook, folder / "notebooks" / f"{stem}.ipynb")

    def run_until(ready) -> None:
        process = subprocess.Popen(
            RUN, cwd=folder, stderr=subprocess.DEVNULL, env=os.environ | SERIAL
        )
        began = time.monotonic()
        while not ready() and process.poll() is None and time.monotonic() - began < 120:
            time.sleep(0.05)
        process.kill()
        process.wait()

    def said() -> str:
        return log.read_text() if log.exists() else ""

    run_until(
        (folder / "runs" / "smoke" / "executed" / "01_a.json").exists
    )  # between the first two
    assert "02_b" not in said()
    run_until(lambda: "02_b begins" in said())
    time.sleep(2)  # the orphaned kernel notices and leaves
    subprocess.run(
        RUN,
        cwd=folder,
        check=True,
        stderr=subprocess.DEVNULL,
        timeout=300,
        env=os.environ | SERIAL,
    )
    lines = said().splitlines()
    assert lines.count("01_a begins") == lines.count("01_a ends") == 1
    assert lines.count("02_b begins") == 2 and lines.count("02_b ends") == 1
    assert lines[-2:] == ["03_c begins", "03_c ends"] and lines.count("03_c begins") == 1
