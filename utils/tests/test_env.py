"""Profiles, devices, seeds, and files written whole or not at all."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from utils import env


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("XTL_PROFILE", "XTL_DATA", "XTL_DEVICE", "XTL_FIGURES"):
        monkeypatch.delenv(name, raising=False)


def cuda(monkeypatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)


@pytest.mark.parametrize(("there", "name"), [(True, "paper"), (False, "demo")])
def test_auto_is_paper_with_a_gpu_and_demo_without(monkeypatch, there, name):
    cuda(monkeypatch, there)
    assert env.profile().name == env.profile("auto").name == name


def test_profile_by_environment_and_the_argument_wins(monkeypatch):
    monkeypatch.setenv("XTL_PROFILE", "smoke")
    assert env.profile().name == "smoke"
    assert env.profile("full").name == "full"


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("smoke", (120, 30, 50)),
        ("demo", (4050, 450, 2500)),
        ("paper", (4050, 450, 2500)),
        ("full", (45000, 5000, 10000)),
    ],
)
def test_profiles_have_the_promised_sizes(name, sizes):
    chosen = env.profile(name)
    assert (chosen.n_train, chosen.n_val, chosen.n_test) == sizes
    assert chosen.figures == env.FIGURES / name


def test_data_source_can_be_replaced_without_changing_the_profile(monkeypatch):
    before = env.profile("paper")
    monkeypatch.setenv("XTL_DATA", "digits")
    after = env.profile("paper")
    assert (before.source, after.source) == ("auto", "digits")
    assert after.n_train == before.n_train
    assert env.PROFILES["paper"].source == "auto"


def test_unknown_profile_is_one_sentence_with_the_choices(monkeypatch):
    monkeypatch.setenv("XTL_PROFILE", "papr")
    with pytest.raises(ValueError, match="'papr'.*XTL_PROFILE.*smoke, demo, paper, full") as caught:
        env.profile()
    assert "\n" not in str(caught.value)


def test_cuda_where_there_is_none(monkeypatch):
    cuda(monkeypatch, False)
    assert env.device().type == "cpu"
    monkeypatch.setenv("XTL_DEVICE", "cuda:0")
    with pytest.raises(RuntimeError, match="'cuda:0'.*no CUDA.*XTL_DEVICE") as caught:
        env.device()
    assert "\n" not in str(caught.value)


def test_unknown_device_names_the_choices():
    with pytest.raises(ValueError, match="'gpu'.*cpu or cuda"):
        env.device("gpu")


def test_seed_repeats_all_three_generators():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    env.seed_everything(3)
    first = draw()
    env.seed_everything(3)
    assert draw() == first
    env.seed_everything(4)
    assert not set(draw()) & set(first)


def test_versions_name_what_is_installed_and_what_is_not(monkeypatch):
    monkeypatch.setattr(env, "PACKAGES", ["torch", "no-such-package"])
    found = env.versions()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["no-such-package"] == "not installed"
    assert found["python"].count(".") == 2


@pytest.mark.parametrize(
    ("profile", "source", "label", "folder"),
    [
        ("demo", "auto", "", "demo"),
        ("demo", "auto", "CIFAR-10 (JPEG copy)", "demo"),
        ("demo", "cifar10", "CIFAR-10 (torchvision)", "demo-cifar10torchvision"),
        ("demo", "auto", "Shapes-10", "demo-shapes10"),
        ("demo", "shapes10", "", "demo-shapes10"),
        ("smoke", "shapes10", "", "smoke"),
        ("paper", "auto", "CIFAR-10 (torchvision)", "paper"),
        ("paper", "auto", "Shapes-10", "paper-shapes10"),
    ],
)
def test_other_data_has_other_figures(monkeypatch, profile, source, label, folder):
    monkeypatch.setenv("XTL_DATA", source)
    monkeypatch.setattr(env, "FOUND", {source: label} if label else {})
    assert env.profile(profile).figures == env.FIGURES / folder


def test_two_folders_of_one_name_are_told_apart(monkeypatch, tmp_path):
    places = []
    for name in ("a", "b"):
        monkeypatch.setenv("XTL_DATA", f"folder:{tmp_path / name / 'my photos!'}")
        places.append(env.profile("demo").figures.name)
    assert len(set(places)) == 2 and all(p.startswith("demo-myphotos-") for p in places)


def test_the_run_decides_for_its_own_profile_only(monkeypatch):
    monkeypatch.setenv("XTL_FIGURES", "smoke-digits")
    assert env.profile("smoke").figures == env.FIGURES / "smoke-digits"
    assert env.profile("demo").figures == env.FIGURES / "demo"


def test_written_whole_or_not_at_all(monkeypatch, tmp_path):
    file = tmp_path / "new" / "a.txt"
    env.write(file, "före\n")
    assert file.read_bytes() == "före\n".encode()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(env.os, "fsync", full)
    with pytest.raises(OSError, match=r"a\.txt could not be written .*No space left.*intact"):
        env.write(file, "after\n")
    assert [f.name for f in file.parent.iterdir()] == ["a.txt"]
    assert file.read_bytes() == "före\n".encode()


def test_one_process_at_a_time(monkeypatch, tmp_path):
    monkeypatch.setattr(env, "RUNS", tmp_path / "runs")
    code = (
        "import sys; from pathlib import Path; from utils import env; "
        "env.RUNS = Path(sys.argv[1], 'runs'); print('ready', flush=True)\n"
        "with env.alone(Path(sys.argv[1], 'x')): print('in', flush=True)"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with env.alone(tmp_path / "x"):
        other = subprocess.Popen(words, cwd=env.ROOT, stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=1)
    assert other.communicate(timeout=60)[0] == "in\n"
