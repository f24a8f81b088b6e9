"""Everything that make does, without make: python -m utils.course TASK

setup      make .venv with the tested versions, or mend it
report     run the whole course and write figures/<profile>/report.html; goes on where it stopped
quick      notebooks 00, 05 and 15 in the smallest size: a report in a few minutes
test       ruff, mypy, unit tests, every notebook with the smoke profile
lab        open the notebooks in JupyterLab
app        serve the explorer alone, on this machine only
bench      compare the speed with the usual way; gpu: the same on a GPU
notebooks  run the course and keep the outputs in notebooks/, ready to commit
address    write the public address name/project into badges, set-up cells and README

This file needs only Python 3.11: it makes the environment in which everything else runs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
READY = VENV / ".ready"
PINS = ROOT / "utils" / "constraints.txt"
ROOM = 6e9  # bytes that the environment takes
OLDEST = (3, 11)
SMOKE = {"XTL_PROFILE": "smoke", "OMP_NUM_THREADS": "1"}
NBVAL = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300"]
# a photograph is often larger than the 10 MB that the server takes by itself
UPLOADS = "--ServerApp.tornado_settings={'websocket_max_message_size': 268435456}"
XDIST = ["-n", "auto", "--dist", "loadfile"]


class Failure(Exception):
    """Why a task cannot be done, in one sentence."""


# ---------------------------------------------------------------- the environment


def setup(again: bool = False) -> None:
    """Make .venv with the tested versions; one that was left half made is mended.

    Raises Failure if Python is too old, the disk is full or no package index answers.
    """
    if sys.version_info < OLDEST:
        raise Failure(
            f"This course needs Python 3.11 or newer, and this is {sys.version.split()[0]}: install a "
            "newer one, or name it as in `make BASE=/path/to/python3.12 report`."
        )
    ready = READY.exists() and READY.stat().st_mtime >= PINS.stat().st_mtime
    if ready and PYTHON.exists() and not again:
        return
    if not VENV.exists():
        free = shutil.disk_usage(ROOT).free
        if free < ROOM:
            raise Failure(
                f"The environment needs about {ROOM / 1e9:.0f} GB, and only {free / 1e9:.1f} GB are "
                "free here: make room, then run the same command."
            )
    print(f"setting up {VENV.name} (once; a few minutes on a fast line)", file=sys.stderr)
    if not _works(PYTHON):
        _create()
    _install()
    READY.touch()


def _works(python: Path) -> bool:
    """Whether a Python starts and is new enough."""
    check = f"import sys; sys.exit(sys.version_info < {OLDEST})"
    try:
        return subprocess.run([str(python), "-c", check], capture_output=True).returncode == 0
    except OSError:
        return False


def _create() -> None:
    """A fresh .venv in place of a missing or broken one. Raises Failure with the reason."""
    if VENV.is_file():
        VENV.unlink()
    if shutil.which("uv"):
        command = ["uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(VENV)]
        if subprocess.run(command, capture_output=True).returncode == 0:
            return
    done = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode == 0 and _works(PYTHON):
        return
    if "ensurepip" in done.stdout or "No module named venv" in done.stdout:
        raise Failure(
            f"{sys.executable} cannot make a virtual environment: install its venv package "
            "(Debian and Ubuntu: python3-venv), then run the same command."
        )
    raise Failure(
        f"{VENV.name} cannot be made ({_last(done.stdout)}): mend that or delete {VENV.name}, then "
        "run the same command."
    )


def _install() -> None:
    """The pinned packages, checked against their hashes: by uv where it can be had, else by pip."""
    pins = ["--require-hashes", "-r", str(PINS)]
    pip = [str(PYTHON), "-m", "pip"]
    quiet = ["--quiet", "--disable-pip-version-check"]
    uv = [shutil.which("uv") or ""]
    if (
        not uv[0]
        and subprocess.run([*pip, "install", *quiet, "uv"], capture_output=True).returncode
    ):
        command = [*pip, "install", *quiet, *pins]
    else:
        uv = uv if uv[0] else [str(PYTHON), "-m", "uv"]
        command = [*uv, "pip", "install", "--quiet", "--python", str(PYTHON), *pins]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failure(_reason(done.stderr))


def _last(output: str) -> str:
    """The last line that a program printed."""
    return (output.strip().splitlines() or ["no reason was given"])[-1].strip()


def _reason(errors: str) -> str:
    """One sentence for why the packages could not be installed."""
    if "No space left" in errors:
        return "The disk is full: make room (about 6 GB), then run the same command."
    if not _index_answers():
        return (
            "No package index answers: connect to the internet, or point PIP_INDEX_URL and "
            "UV_DEFAULT_INDEX to one, then run the same command."
        )
    return f"The packages could not be installed ({_last(errors)}): the same command tries again."


def _index_answers() -> bool:
    """Whether the package index answers, be it with an error."""
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("PIP_INDEX_URL")
    try:
        urllib.request.urlopen(index or "https://pypi.org/simple/", timeout=8).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


# ---------------------------------------------------------------- the tasks


def python(*words: str, **settings: str) -> int:
    """Run a module in the environment; its exit status."""
    surroundings = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"} | settings
    process = subprocess.Popen([str(PYTHON), "-m", *words], cwd=ROOT, env=surroundings)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the child gets it too and ends with its own sentence


def test(words: Sequence[str]) -> int:
    """Every check; goes on after a failure, and names at the end what failed."""
    os.environ.pop("XTL_DATA", None)
    checks = {
        "ruff check": ["ruff", "check", "--quiet", "."],
        "ruff format": ["ruff", "format", "--check", "--quiet", "."],
        "mypy": ["mypy"],
        "unit tests": ["pytest", *XDIST, "utils/tests", *words],
        "notebooks": ["pytest", *XDIST, *NBVAL, "notebooks", *words],
    }
    failed = []
    for name, command in checks.items():
        status = python(*command, **SMOKE)
        if status == 130 or (command[0] == "pytest" and status == 2):
            print(f"\nStopped in {name}: `make test` starts again.", file=sys.stderr)
            return 130
        failed += [name] if status else []
    if failed:
        print(f"FAILED: {', '.join(failed)}; see above.", file=sys.stderr)
    return len(failed)


def quick() -> int:
    """A report page with the first maps in the smallest profile, minutes after the set-up."""
    only = ["00_start_here", "05_gradcam", "15_report"]
    return python("utils.report", "run", "--profile", "smoke", "--only", *only)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's first lines."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.course",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tasks = "setup report quick test lab app bench gpu notebooks address".split()
    parser.add_argument("task", choices=tasks)
    parser.add_argument("--profile", help="smoke, demo, paper or full (default: XTL_PROFILE)")
    options, words = parser.parse_known_args(arguments)
    if options.profile:
        os.environ["XTL_PROFILE"] = options.profile
    try:
        setup(again=options.task == "setup")
        return run(options.task, words)
    except Failure as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from there.", file=sys.stderr)
        return 130


def run(task: str, words: Sequence[str]) -> int:
    """Do one task in the environment; its exit status."""
    profile = os.environ.get("XTL_PROFILE") or "demo"
    commands = {
        "report": ["utils.report", "run", *words],
        "lab": ["jupyterlab", "notebooks", UPLOADS, *words],
        "app": ["utils.explorer", *words],
        "bench": ["utils.bench", *words],
        "gpu": ["utils.bench", "gpu", *words],
        "notebooks": ["utils.report", "notebooks", "--profile", profile, *words],
        "address": ["utils.report", "address", *words],
    }
    if task == "setup":
        return 0
    if task == "test":
        return test(words)
    return quick() if task == "quick" else python(*commands[task])


if __name__ == "__main__":
    sys.exit(main())
