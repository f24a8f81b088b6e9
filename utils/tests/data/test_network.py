"""Whether a network answers, within seconds."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from utils.data import network


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(network, "_silent", {})


@pytest.fixture
def mute():
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def test_a_silent_network_counts_as_none_and_is_asked_once(monkeypatch, mute, requests):
    monkeypatch.setattr(network, "PATIENCE", 0.3)
    assert not network.reachable(mute)
    assert not network.reachable(mute) and len(requests) == 1  # remembered
    network._silent[mute] -= 61  # a minute later it is asked again
    assert not network.reachable(mute) and len(requests) == 2


def test_patience_is_under_ten_seconds():
    assert network.PATIENCE < 10


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
        assert network.reachable(f"http://127.0.0.1:{server.server_port}/")


def test_no_name_no_network():
    assert not network.reachable("http://no-such-host.invalid/")


def test_impatient_sockets_are_put_back(monkeypatch):
    before = socket.getdefaulttimeout()
    with pytest.raises(KeyError), network.impatient():
        assert socket.getdefaulttimeout() == network.PATIENCE
        raise KeyError
    assert socket.getdefaulttimeout() == before
