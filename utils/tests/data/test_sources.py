"""Sources by name, with and without a network."""

from __future__ import annotations

import pickle
import socket
import threading
from hashlib import md5
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from utils import data, env
from utils.data import network, sources
from utils.tests.data.pictures import noise, plant

IDENTITY = dict(mean=(0.0,) * 3, std=(1 / 255,) * 3)  # levels in, levels out
PROFILE = env.PROFILES["smoke"]
REAL = env.DATA / "cifar10" / "train"


# ---------------------------------------------------------------- sources


def test_digits_are_the_real_scans():
    train, test = data.load("digits"), data.load("digits", "test")
    assert len(train) + len(test) == 1797 and train.classes == tuple("0123456789")
    assert train.images.shape[1:] == (3, 32, 32) and train.images.max() == 255
    assert torch.equal(train.images[:, 0], train.images[:, 2])


def test_shapes_train_and_test_differ():
    train, test = data.load("shapes10"), data.load("shapes10", "test")
    assert (len(train), len(test)) == (5000, 2500) and train.masks.any((1, 2)).all()
    assert not torch.equal(train.images[:2500], test.images)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("imagenet",),
            "'imagenet'.*cifar10, cifar100, shapes10, cats_vs_dogs, shapes10_pair, digits",
        ),
        (("digits", "val"), "'val'.*train or test"),
    ],
)
def test_unknown_source_and_split(arguments, words):
    with pytest.raises(ValueError, match=words):
        data.load(*arguments)


def test_auto_falls_back_to_shapes_and_says_so(empty, capsys):
    assert data.load("auto").source == "Shapes-10"
    assert "using the built-in Shapes-10 instead" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="CIFAR-10 is neither.*shapes10"):
        data.load("cifar10")


def test_a_silent_network_is_asked_once_for_both_splits(empty, monkeypatch, requests):
    monkeypatch.setattr(network, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts, and never answers
        monkeypatch.setattr(
            CIFAR10, "url", f"http://127.0.0.1:{mute.getsockname()[1]}/cifar.tar.gz"
        )
        parts = data.splits(env.replace(PROFILE, source="auto"))
    assert parts.train.source == parts.test.source == "Shapes-10" and len(requests) == 1


def test_download_that_stalls_is_given_up(empty, monkeypatch, capsys):
    class Stall(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            given_up.append(done.wait(60))

        def log_message(self, *arguments):
            pass

    done, given_up = threading.Event(), []
    monkeypatch.setattr(network, "PATIENCE", 0.5)
    with HTTPServer(("127.0.0.1", 0), Stall) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/cifar.tar.gz")
        assert data.load("auto").source == "Shapes-10"
        done.set()
        server.shutdown()
    assert given_up and all(given_up)  # while the server was still keeping it waiting
    assert "The CIFAR-10 download failed" in capsys.readouterr().out


def test_torchvision_copy(empty, monkeypatch):
    """A small copy in torchvision's own layout, checksums included."""
    base = empty / CIFAR10.base_folder
    base.mkdir(parents=True)
    names = list("abcdefghij")
    pixels = {"data_batch_1": noise(20, 32, 32, 1), "test_batch": noise(10, 32, 32, 2)}
    files = {
        name: {"data": images.flatten(1).numpy(), "labels": [i % 10 for i in range(len(images))]}
        for name, images in pixels.items()
    } | {"batches.meta": {"label_names": names}}
    sums = {}
    for name, content in files.items():
        (base / name).write_bytes(pickle.dumps(content))
        sums[name] = md5((base / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    for split, name in (("train", "data_batch_1"), ("test", "test_batch")):
        found = data.load("auto", split)
        assert found.source == "CIFAR-10 (torchvision)" and found.classes == tuple(names)
        assert torch.equal(found.images, pixels[name])
        assert found.labels.tolist() == files[name]["labels"]
    plant(empty / "cifar10" / "train", {"x": 2, "y": 2})
    assert data.load("auto").source == "CIFAR-10 (image folder)"  # the folder comes first
    (base / "test_batch").write_bytes(b"cut short")
    with pytest.raises(FileNotFoundError, match="CIFAR-10 is neither"):
        data.load("cifar10", "test")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_cifar100_from_an_image_folder(empty, suffix):
    for split in ("train", "test"):
        plant(empty / "cifar100" / split, {"apple": 3, "aquarium fish": 3}, size=(32, 32))
        for file in list((empty / "cifar100" / split).glob("*/*.png")):
            file.rename(file.with_suffix(f".{suffix}"))
    kind = {"jpg": "JPEG copy", "png": "image folder"}[suffix]
    for split in ("train", "test"):
        whole = data.load("cifar100", split)
        assert whole.source == f"CIFAR-100 ({kind})" and whole.images.shape == (6, 3, 32, 32)
        assert whole.classes == ("apple", "aquarium fish")


def test_cifar100_without_a_network_says_what_to_do(empty):
    with pytest.raises(FileNotFoundError, match="CIFAR-100 is neither.*data/cifar100/.train,test"):
        data.load("cifar100")


def test_torchvisions_cifar100(empty, monkeypatch):
    """Its copy has other names for files and labels than CIFAR-10's."""
    base = empty / CIFAR100.base_folder
    base.mkdir(parents=True)
    names, pixels = [f"class {k}" for k in range(100)], noise(20, 32, 32, 3)
    content = {"data": pixels.flatten(1).numpy(), "fine_labels": list(range(20))}
    (base / "test").write_bytes(pickle.dumps(content))
    (base / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))
    sums = {name: md5((base / name).read_bytes()).hexdigest() for name in ("test", "meta")}
    monkeypatch.setattr(CIFAR100, "train_list", [])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    meta = {"filename": "meta", "key": "fine_label_names", "md5": sums["meta"]}
    monkeypatch.setattr(CIFAR100, "meta", meta)
    whole = data.load("cifar100", "test")
    assert whole.source == "CIFAR-100 (torchvision)" and whole.classes == tuple(names)
    assert torch.equal(whole.images, pixels) and whole.labels.tolist() == list(range(20))


def test_only_cifar10_keeps_its_later_images_apart(monkeypatch):
    """The course's weights have seen CIFAR-10's pool; CIFAR-100's images are all fresh."""
    for name, fresh in (("CIFAR-10", False), ("CIFAR-100", True)):
        labels = torch.arange(6000) % 10
        whole = data.ImageSet(noise(6000, 2, 2), labels, tuple("abcdefghij"), f"{name} (fake)")
        monkeypatch.setitem(sources.READERS, "auto", lambda split, whole=whole: whole)
        assert (data.splits(env.PROFILES["paper"]).indices["train"].max() >= 5000) == fresh


# ---------------------------------------------------------------- the real images


@pytest.mark.real_data
@pytest.mark.skipif(
    not REAL.is_dir(), reason="data/cifar10 is not there: unpack the real images to run this"
)
def test_real_cifar10_in_its_official_order():
    for split, n in (("train", 50000), ("test", 10000)):
        found = data.load("auto", split)
        assert found.source == "CIFAR-10 (JPEG copy)" and found.images.shape == (n, 3, 32, 32)
        assert set(found.class_counts().values()) == {n // 10}
        for index in (0, 1, 4999, n - 1):
            (file,) = (env.DATA / "cifar10" / split).glob(f"*/{index:05d}.jpg")
            assert found.classes[found.labels[index]] == file.parent.name
            assert torch.equal(found.images[index], data.read_image(file))
    assert found.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]  # as published
    maps = Path("/proc/self/maps")
    if maps.exists():  # Linux says which files are mapped: the images are file pages, not a copy
        assert str((env.DATA / "cache").resolve()) in maps.read_text()  # data/ may be a link
