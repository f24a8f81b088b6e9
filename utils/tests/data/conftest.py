"""What the tests of the data package share."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from utils import env
from utils.data import folders, network, pairs


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with nothing in it, no network, and nothing printed yet."""
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setattr(env, "DATA", folder)
    monkeypatch.setattr(env, "FOUND", {})  # what a name such as auto has stood for
    monkeypatch.setattr(network, "_silent", {})
    monkeypatch.setattr(folders, "_noted", set())
    for kind in (CIFAR10, CIFAR100):
        monkeypatch.setattr(kind, "url", "http://no-such-host.invalid/cifar.tar.gz")
    monkeypatch.setattr(pairs, "PETS_URL", "http://no-such-host.invalid/pets.tar.gz")
    return folder


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What urllib has been asked to open since the test began."""
    opened, urlopen = [], urllib.request.urlopen

    def counted(request: object, **options: object) -> object:
        opened.append(request)
        return urlopen(request, **options)

    monkeypatch.setattr(urllib.request, "urlopen", counted)
    return opened
