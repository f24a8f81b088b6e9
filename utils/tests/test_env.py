"""Profiles, devices, seeds, and files written whole or not at all."""

import random

import numpy as np
import pytest
import torch

from utils import env


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("XTL_PROFILE", "XTL_DATA", "XTL_DEVICE"):
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
        ("demo", (2000, 250, 1000)),
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
