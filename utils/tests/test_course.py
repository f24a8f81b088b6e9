"""The set-up of the course: why it fails is one sentence, and what is broken gets mended."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from utils import course


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which .venv would be made, and a package index that does not answer."""
    venv = tmp_path / ".venv"
    monkeypatch.setattr(course, "ROOT", tmp_path)
    monkeypatch.setattr(course, "VENV", venv)
    monkeypatch.setattr(course, "PYTHON", venv / "bin" / "python")
    monkeypatch.setattr(course, "READY", venv / ".ready")
    monkeypatch.setattr(course, "_install", lambda: None)
    for name in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    return venv


def working(venv: Path) -> None:
    """A stand-in for a fresh environment: its Python is this one."""
    (venv / "bin").mkdir(parents=True, exist_ok=True)
    python = venv / "bin" / "python"
    python.unlink(missing_ok=True)
    python.symlink_to(sys.executable)


def test_an_old_python_is_named(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "OLDEST", (99, 0))
    with pytest.raises(course.Failure, match=rf"this is {sys.version.split()[0]}: install a newer"):
        course.setup()
    assert not environment.exists()


def test_a_full_disk_is_named(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "ROOM", 1e18)
    with pytest.raises(course.Failure, match=r"only \d+\.\d GB are free here: make room"):
        course.setup()
    assert not environment.exists()


def test_why_packages_are_missing_is_said(environment: Path) -> None:
    assert course._reason("OSError: [Errno 28] No space left on device").startswith("The disk is")
    assert course._reason("connection refused").startswith("No package index answers: connect")


@pytest.mark.skipif(os.name == "nt", reason="links to this Python")
@pytest.mark.parametrize("left", ["nothing", "half made", "a dead link", "finished, Python gone"])
def test_a_broken_environment_is_mended(
    environment: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    created: list[Path] = []
    monkeypatch.setattr(
        course, "_create", lambda: (created.append(environment), working(environment))
    )
    if left != "nothing":
        (environment / "bin").mkdir(parents=True)
    if left == "half made":
        (environment / "bin" / "python").write_text("garbage")
    elif left != "nothing":
        (environment / "bin" / "python").symlink_to(environment / "gone")
    if left.startswith("finished"):
        course.READY.touch()
    for _ in range(2):  # the second time there is nothing to mend
        course.setup()
    assert created == [environment] and course.READY.exists()


def test_a_failed_creation_gives_its_reason(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course.shutil, "which", lambda name: None)
    monkeypatch.setattr(course.sys, "executable", str(environment / "python"))
    for output, reason in (
        ("ensurepip is not available", "install its venv package"),
        ("Permission denied", r"\.venv cannot be made \(Permission denied\)"),
    ):
        answer = course.subprocess.CompletedProcess([], 1, stdout=output)
        monkeypatch.setattr(course.subprocess, "run", lambda *a, answer=answer, **k: answer)
        with pytest.raises(course.Failure, match=reason):
            course._create()
