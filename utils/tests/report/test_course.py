"""The run of the course as a graph, on notebooks of a few lines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest
from matplotlib.figure import Figure

from utils import env, report
from utils.report import course, graph, keys, notebooks
from utils.report.__main__ import main
from utils.report.execute import Run

Write = Callable[..., Path]
Plot = Callable[[], Figure]


# ---------------------------------------------------------------- the run


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the notebooks that were executed; no kernel is started."""
    names: list[str] = []

    def stand_in(run: Run, target: Path, settings: dict[str, str]) -> None:
        names.append(run.file.stem)
        env.write(target, run.file.read_bytes())
        if "fail" in run.file.read_text():
            raise RuntimeError(f"{run.file.stem} stopped")

    monkeypatch.setattr(graph, "execute", stand_in)
    monkeypatch.setenv("XTL_JOBS", "1")
    return names


def test_an_interrupted_run_goes_on(write_notebook: Write, tmp_path: Path, ran: list[str]) -> None:
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    write_notebook("01_a", "1", folder=folder)
    write_notebook("02_b", "fail", folder=folder)
    write_notebook("03_c", "3", folder=folder)
    with pytest.raises(RuntimeError, match="stopped"):
        course.run_course("smoke", folder, out)
    assert (out / "02_b.ipynb").exists()  # the partial copy

    write_notebook("02_b", "2", folder=folder)
    copies = course.run_course("smoke", folder, out)
    assert [c.name for c in copies] == ["01_a.ipynb", "02_b.ipynb", "03_c.ipynb"]
    assert ran == ["01_a", "02_b", "02_b", "03_c"]  # the finished one not again
    write_notebook("01_a", "11", folder=folder)
    course.run_course("smoke", folder, out)
    assert ran[4:] == [
        "01_a",
        "03_c",
    ]  # what changed, and the last, which reads the others' results


def test_another_profile_or_source_runs_again(
    write_notebook: Write, tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    for name in ("01_a", "02_b"):
        write_notebook(name, "1", folder=folder)
    course.run_course("smoke", folder, out)
    monkeypatch.setenv("XTL_DATA", "digits")
    course.run_course("smoke", folder, out)
    assert ran == ["01_a", "02_b", "01_a", "02_b"]


def test_a_lost_figure_is_drawn_again(
    write_notebook: Write, tmp_path: Path, ran: list[str], plot: Plot, monkeypatch
) -> None:
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    for name in ("01_a", "02_b"):
        write_notebook(name, "1", folder=folder)
    drawn = tmp_path / "figures" / "smoke" / "01_x.png"
    plain = graph.execute

    def drawing(run: Run, target: Path, settings: dict[str, str]) -> None:
        report.save_figure(plot(), f"{run.file.stem[:2]}_x", "A line.")
        plain(run, target, settings)

    monkeypatch.setattr(graph, "execute", drawing)
    report.save_figure(plot(), "01_old", "Drawn by a former version.")
    course.run_course("smoke", folder, out)
    assert [f.stem for f in report.figure_files()] == ["01_x", "02_x"]
    course.run_course("smoke", folder, out)
    drawn.unlink()
    course.run_course("smoke", folder, out)
    assert ran == ["01_a", "02_b", "02_b", "01_a", "02_b"]


def test_stale_numbers_are_dropped_before_a_run(
    write_notebook: Write, tmp_path: Path, ran: list[str]
) -> None:
    folder, out = tmp_path / "n", tmp_path / "out"
    for stem in ("01_a", "02_b", "03_c"):
        write_notebook(stem, "1", folder=folder)
    report.save_results("11_former", {"old": 1.0}, "Shapes-10")
    report.save_results("01_a", {"old": 1.0}, "Shapes-10")
    course.run_course("smoke", folder, out)
    assert report.load_results() == {}
    report.save_results("01_a", {"new": 1.0})  # as if the notebook had
    report.save_results("02_b", {"new": 1.0})
    write_notebook("02_b", "2", folder=folder)
    course.run_course("smoke", folder, out)
    assert set(report.load_results()) == {"meta", "01_a"}  # finished, and not run again


def test_auto_is_settled_once(
    monkeypatch: pytest.MonkeyPatch, write_notebook: Write, tmp_path: Path
) -> None:
    asked: list[str] = []

    def load(source: str, split: str) -> object:
        asked.append(source)
        return type("Set", (), {"source": "Shapes-10"})

    told: list[dict[str, str]] = []
    monkeypatch.setattr(course.data, "load", load)
    monkeypatch.setattr(graph, "execute", lambda run, target, settings: told.append(settings))
    for name in ("01_a", "02_b"):
        write_notebook(name, "1", folder=tmp_path / "n")
    course.run_course("demo", tmp_path / "n", tmp_path / "out")
    assert asked == ["auto"]
    settings = {"XTL_PROFILE": "demo", "XTL_DATA": "shapes10", "XTL_FIGURES": "demo-shapes10"}
    assert told == [settings | {"OMP_NUM_THREADS": "1"}] * 2


def test_a_failing_cell_ends_in_one_sentence(write_notebook: Write, tmp_path: Path) -> None:
    tell = "import os; print(os.environ['XTL_DATA'], os.environ.get('MPLBACKEND', '').split(':')[-1][:6])"
    write_notebook(
        "01_a",
        "# A",
        tell,
        "",
        "raise KeyError('first\\nlast words')",
        "never",
        folder=tmp_path / "n",
    )
    with pytest.raises(
        RuntimeError, match=r"^01_a\.ipynb stopped in code cell 2: .*last words"
    ) as caught:
        course.run_course("smoke", tmp_path / "n", tmp_path / "out")
    assert "\n" not in str(caught.value)
    partial = nbformat.read(tmp_path / "out" / "01_a.ipynb", 4)
    assert partial.cells[1].outputs[0].text.startswith("shapes10")
    assert [c.get("execution_count") for c in partial.cells] == [None, 1, None, 2, None]


def test_a_dead_kernel_is_named(write_notebook: Write, tmp_path: Path) -> None:
    write_notebook("01_a", "1", "import os; os._exit(1)", folder=tmp_path / "n")
    with pytest.raises(
        RuntimeError, match=r"01_a\.ipynb stopped in code cell 2: its Python process died"
    ):
        course.run_course("smoke", tmp_path / "n", tmp_path / "out")


def test_publish_refuses_a_notebook_that_names_this_machine(
    write_notebook: Write, tmp_path: Path
) -> None:
    check = "# NBVAL_CHECK_OUTPUT\nprint(1)"
    file = write_notebook(
        "01_a", "# A", check, check, check, "print('/' + 'tmp/x')", folder=tmp_path / "n"
    )
    with pytest.raises(RuntimeError, match=r"01_a\.ipynb: it names a place on one machine: /tmp/x"):
        course.publish("smoke", tmp_path / "n", tmp_path / "out")
    assert nbformat.read(file, 4).cells[1].outputs == []

    write_notebook("01_a", "# A", check, check, check, folder=tmp_path / "n")
    course.publish("smoke", tmp_path / "n", tmp_path / "out")
    assert notebooks.faults(file) == []


def test_the_committed_notebooks_never_hold_ones_own_images(
    ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XTL_DATA", "folder:pets")
    with pytest.raises(ValueError, match="of folder:pets: run `make report` instead"):
        course.publish("smoke")
    assert ran == []


def test_what_does_not_need_a_failed_notebook_still_runs(
    write_notebook: Write, tmp_path: Path, ran: list[str]
) -> None:
    folder = tmp_path / "n"
    for stem in ("02_finetune_resnet34", "12_explain_to_improve"):
        write_notebook(stem, "'fail'", folder=folder)
    for stem in ("01_data", "03_finetune_vit", "04_evaluation", "15_report"):
        write_notebook(stem, "1", folder=folder)
    with pytest.raises(RuntimeError) as caught:
        course.run_course("smoke", folder, tmp_path / "out")
    assert str(caught.value) == "02_finetune_resnet34 stopped\n12_explain_to_improve stopped"
    assert set(ran) == {"01_data", "02_finetune_resnet34", "12_explain_to_improve"}


def test_every_need_is_a_notebook_before_it() -> None:
    stems = [f.stem for f in course.course()]
    for stem, needs in graph.NEEDS.items():
        assert all(need < stem for need in needs)
        if stem in stems:
            assert set(needs) <= set(stems)


def test_notebooks_begin_when_what_they_need_is_done(
    write_notebook: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, events, lock = tmp_path / "n", [], threading.Lock()
    first = threading.Barrier(2)  # the two that need nothing run at the same time
    for stem in ("01_data", "02_finetune_resnet34", "03_finetune_vit", "04_evaluation", "15_x"):
        write_notebook(stem, "1", folder=folder)

    def slow(run: Run, target: Path, settings: dict[str, str]) -> None:
        with lock:
            events.append(("begins", run.file.stem))
        if run.file.stem in ("01_data", "02_finetune_resnet34"):
            first.wait(60)
        with lock:
            events.append(("ends", run.file.stem))

    monkeypatch.setattr(graph, "execute", slow)
    monkeypatch.setenv("XTL_JOBS", "3")
    course.run_course("smoke", folder, tmp_path / "out")
    assert {stem for _, stem in events[:2]} == {"01_data", "02_finetune_resnet34"}
    at = {event: n for n, event in enumerate(events)}
    for stem in ("03_finetune_vit", "04_evaluation"):
        for need in graph.NEEDS[stem]:
            assert at["ends", need] < at["begins", stem]
    assert events[-2:] == [("begins", "15_x"), ("ends", "15_x")]


def test_ctrl_c_is_one_sentence_and_ends_the_kernels(tmp_path: Path, write_notebook: Write) -> None:
    cell = "import os; open('pid', 'a').write(f'{os.getpid()} ')"
    for stem in ("01_a", "02_b"):
        write_notebook(stem, cell, "import time; time.sleep(60)", folder=tmp_path / "n")
    write_notebook("03_c", "1", folder=tmp_path / "n")
    code = (
        "from utils.report import __main__ as m, course as c; from pathlib import Path; "
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"c.NOTEBOOKS = Path({str(tmp_path)!r}, 'n'); out = c.NOTEBOOKS / 'out'; "
        "m.run_course = lambda *a, **k: c.run_course('smoke', c.NOTEBOOKS, out); m.main(['run'])"
    )
    settings = os.environ | {"XTL_JOBS": "2", "XTL_PROFILE": "smoke"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=env.ROOT, stderr=subprocess.PIPE, text=True, env=settings
    )
    pids, begun = tmp_path / "n" / "pid", time.monotonic()
    while not pids.exists() or len(pids.read_text().split()) < 2:
        assert time.monotonic() - begun < 300 and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    last = errors.strip().splitlines()[-1]
    assert last == (
        "Stopped in 01_a (cell 2 of 2) and 02_b (cell 2 of 2); 0 of 3 notebooks are done. "
        "The same command goes on from there."
    )
    assert "Traceback" not in errors
    assert not any(psutil.pid_exists(int(pid)) for pid in pids.read_text().split())


def test_the_command_line_ends_with_a_sentence() -> None:
    with pytest.raises(SystemExit, match="There is no executed 15_report for the profile smoke"):
        main(["html"])
    with pytest.raises(SystemExit, match="There is no profile 'none'"):
        main(["html", "--profile", "none"])


def test_a_notebook_depends_on_what_it_imports() -> None:
    """Work on one helper does not run notebooks again that never see it."""
    data_only = {p.stem for p in keys.helpers("from utils import data")}
    assert {"sources", "pixels", "env"} <= data_only and not {"lrp", "plots", "page"} & data_only
    assert {"lrp", "attention"} <= {p.stem for p in keys.helpers("from utils.explorer import View")}
    assert keys.helpers("import torch") == set()


def test_what_decides_a_notebook(write_notebook: Write, tmp_path: Path, monkeypatch) -> None:
    photos = tmp_path / "photos" / "cat"
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "0.jpg").write_bytes(b"first")
    (photos / "1.jpg").write_bytes(b"one")
    source = f"folder:{photos.parent}"

    def key(*cells: str) -> str:
        file = write_notebook("01_a", "# Title", *cells, folder=tmp_path / "n")
        return keys.key(file, {"XTL_DATA": source}, keys.source_hash(source))

    first = key("x = 1")
    assert key("x = 1  # a comment") == first
    assert key("x = 2") != first
    (photos / "2.jpg").write_bytes(b"two")
    added = key("x = 1")
    assert added != first
    (photos / "2.jpg").write_bytes(b"other")
    assert key("x = 1") != added
    (photos / "2.jpg").unlink()
    assert key("x = 1") == first
    installed = env.versions
    monkeypatch.setattr(env, "versions", lambda *names: installed(*names) | {"timm": "99"})
    assert key("x = 1") != first
    assert {"torch", "grad-cam", "scipy"} <= set(keys.requirements())


def test_new_prose_reaches_a_finished_copy(
    write_notebook: Write, tmp_path: Path, ran: list[str]
) -> None:
    folder, out = tmp_path / "n", tmp_path / "out"
    write_notebook("01_a", "# Old words", "print(1)", folder=folder)
    write_notebook("02_b", "2", folder=folder)
    course.run_course("smoke", folder, out)
    copy = nbformat.read(out / "01_a.ipynb", 4)
    copy.cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="1")]
    nbformat.write(copy, out / "01_a.ipynb")
    write_notebook("01_a", "# New words", "print(1)", folder=folder)
    course.run_course("smoke", folder, out)
    copy = nbformat.read(out / "01_a.ipynb", 4)
    assert copy.cells[0].source == "# New words" and copy.cells[1].outputs[0].text == "1"
    assert ran == ["01_a", "02_b", "02_b"]
