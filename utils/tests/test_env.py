"""Profiles, devices, seeds and the question whether a network is there."""

import random
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch

from utils import env


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("XTL_PROFILE", "XTL_DATA", "XTL_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(env, "_silent", {})


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


@pytest.fixture
def mute():
    """The address of a server that accepts connections and never answers; counts them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def test_a_silent_network_counts_as_none_and_is_asked_once(monkeypatch, mute):
    monkeypatch.setattr(env, "PATIENCE", 0.3)
    begun = time.monotonic()
    assert not env.reachable(mute)
    assert 0.2 < time.monotonic() - begun < 1.5
    begun = time.monotonic()
    assert not env.reachable(mute)  # remembered
    assert time.monotonic() - begun < 0.1
    env._silent[mute] -= 61  # a minute later it is asked again
    begun = time.monotonic()
    assert not env.reachable(mute)
    assert time.monotonic() - begun > 0.2


def test_patience_is_under_ten_seconds():
    assert env.PATIENCE < 10


@pytest.mark.parametrize("status", [200, 404])
def test_an_answer_is_an_answer_even_if_it_is_an_error(status):
    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert env.reachable(f"http://127.0.0.1:{server.server_port}/")


def test_no_name_no_network():
    assert not env.reachable("http://no-such-host.invalid/")


def test_impatient_sockets_are_put_back(monkeypatch):
    before = socket.getdefaulttimeout()
    with pytest.raises(KeyError), env.impatient():
        assert socket.getdefaulttimeout() == env.PATIENCE
        raise KeyError
    assert socket.getdefaulttimeout() == before
