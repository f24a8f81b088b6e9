"""Sources, splits, reading of odd files, and the tensor pipeline against PIL."""

import io
import os
import pickle
import socket
import threading
import time
from hashlib import md5
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from utils import data, env
from utils.data import shapes

IDENTITY = dict(mean=(0.0,) * 3, std=(1 / 255,) * 3)  # levels in, levels out
PROFILE = env.PROFILES["smoke"]
REAL = env.DATA / "cifar10" / "train"


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """A data folder with nothing in it, and no network."""
    monkeypatch.setattr(data, "DATA", tmp_path / "data")
    monkeypatch.setattr(env, "_silent", {})
    monkeypatch.setattr(CIFAR10, "url", "http://no-such-host.invalid/cifar.tar.gz")
    return tmp_path / "data"


def noise(n: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, height, width), generator=generator, dtype=torch.uint8)


def picture(size=(20, 20), level: int = 0) -> Image.Image:
    return Image.new("RGB", size, (level, 100, 200))


def plant(folder, counts: dict[str, int], size=(20, 20), suffix="png") -> None:
    """folder/<class>/<k>.<suffix>, the red level telling class and image apart."""
    for c, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            picture(size, 20 * c + k).save(folder / name / f"img {k}.{suffix}")


# ---------------------------------------------------------------- preprocessing


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (32, 32, 128),
        (32, 32, 224),
        (32, 32, 48),
        (333, 500, 128),
        (500, 333, 224),
        (64, 64, 32),
        (256, 256, 224),
        (100, 100, 224),
        (7, 90, 33),
    ],
)
def test_preprocess_is_pils_bilinear_level_for_level(height, width, size):
    images = noise(3, height, width)
    if height > width and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("before version 13 Pillow resized upright pictures in another order")
    ours = data.preprocess(images, size, **IDENTITY)
    for image, got in zip(images, ours, strict=True):
        pil = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(
            (size, size), Image.Resampling.BILINEAR
        )
        wanted = torch.from_numpy(np.array(pil)).permute(2, 0, 1)
        assert torch.equal(got.round().to(torch.uint8), wanted)
        assert (got - wanted).abs().max() < 1e-3


def test_preprocess_normalises_and_ignores_memory_layout():
    images, mean, std = noise(2, 32, 32), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    got = data.preprocess(images, 32, mean, std)
    wanted = (images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert got.dtype == torch.float32 and torch.allclose(got, wanted, atol=1e-5)
    laid_out = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(
        data.preprocess(laid_out, 64, mean, std), data.preprocess(images, 64, mean, std)
    )
    one_by_one = torch.cat([data.preprocess(image[None], 64, mean, std) for image in images])
    assert torch.equal(one_by_one, data.preprocess(images, 64, mean, std))


def test_augment_equals_a_per_image_reference():
    images = noise(12, 32, 32)
    got = data.augment(images, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    flip = torch.rand(12, generator=generator) < 0.5
    dy, dx = torch.randint(0, 9, (2, 12), generator=generator)
    assert flip.any() and not flip.all() and dx.unique().numel() > 3
    for i, image in enumerate(images):
        padded = torch.zeros(3, 40, 40, dtype=torch.uint8)
        padded[:, 4:36, 4:36] = image
        cut = padded[:, dy[i] : dy[i] + 32, dx[i] : dx[i] + 32]
        assert torch.equal(got[i], cut.flip(2) if flip[i] else cut)


# ---------------------------------------------------------------- corruptions


@pytest.mark.parametrize("kind", data.CORRUPTIONS)
def test_corruptions_are_seeded_and_grow_with_severity(kind):
    images, _ = shapes.draw(torch.arange(10), seed=1)
    damaged = [data.corrupt(images, kind, severity, seed=4) for severity in (1, 2, 3)]
    assert all(d.shape == images.shape and d.dtype == torch.uint8 for d in damaged)
    harm = [(d.float() - images).square().mean().item() for d in damaged]
    assert 1 < harm[0] < harm[1] < harm[2]
    assert torch.equal(damaged[1], data.corrupt(images, kind, 2, seed=4))
    if kind in ("noise", "occlusion"):
        assert not torch.equal(damaged[1], data.corrupt(images, kind, 2, seed=5))


def test_unknown_corruption_and_severity():
    with pytest.raises(ValueError, match="'fog'.*noise, blur"):
        data.corrupt(noise(1, 8, 8), "fog")
    with pytest.raises(ValueError, match="4 is not 1, 2 or 3"):
        data.corrupt(noise(1, 8, 8), "noise", 4)


# ---------------------------------------------------------------- one image set


def test_wrong_label_count_and_one_class():
    with pytest.raises(ValueError, match="mine: 3 images but 2 labels"):
        data.ImageSet(noise(3, 8, 8), torch.tensor([0, 1]), ("a", "b"), "mine")
    with pytest.raises(ValueError, match="mine holds one class"):
        data.ImageSet(noise(2, 8, 8), torch.tensor([0, 0]), ("a",), "mine")


def test_subset_keeps_order_and_masks():
    whole = data.load("shapes10")
    part = whole.subset([5, 3, 9])
    assert torch.equal(part.images, whole.images[[5, 3, 9]])
    assert torch.equal(part.labels, whole.labels[[5, 3, 9]]) and torch.equal(
        part.masks, whole.masks[[5, 3, 9]]
    )
    assert sum(whole.class_counts().values()) == len(whole)
    assert set(whole.class_counts().values()) == {500}


# ---------------------------------------------------------------- splits


@pytest.mark.parametrize("source", ["shapes10", "digits"])
def test_splits_are_seeded_disjoint_and_stratified(source):
    chosen = env.replace(PROFILE, source=source, n_train=300, n_val=60, n_test=100)
    one, same = data.splits(chosen), data.splits(chosen)
    assert [len(s) for s in (one.train, one.val, one.test)] == [300, 60, 100]
    for key, at in one.indices.items():
        assert np.array_equal(at, same.indices[key]) and len(set(at)) == len(at)
    assert not set(one.indices["train"]) & set(one.indices["val"])
    other = data.splits(env.replace(chosen, seed=1))
    assert set(other.indices["train"]) != set(one.indices["train"])
    pool = data.load(source)
    shares = torch.bincount(pool.labels) / len(pool)
    for part in (one.train, one.val):
        assert (torch.bincount(part.labels) - shares * len(part)).abs().max() <= 1
    assert torch.equal(one.train.labels, pool.labels[one.indices["train"]])


def test_paper_draws_from_the_first_5000_of_cifar10(monkeypatch):
    labels = torch.arange(6000) % 10
    whole = data.ImageSet(noise(6000, 2, 2), labels, tuple("abcdefghij"), "CIFAR-10 (fake)")
    monkeypatch.setattr(data, "load", lambda source, split: whole)
    paper = data.splits(env.PROFILES["paper"])
    assert [len(p) for p in (paper.train, paper.val, paper.test)] == [4050, 450, 2500]
    drawn = np.concatenate([paper.indices["train"], paper.indices["val"]])
    assert drawn.max() < 5000 and len(set(drawn)) == 4500
    assert set(paper.train.class_counts().values()) == {405}
    assert set(paper.val.class_counts().values()) == {45}
    assert set(paper.test.class_counts().values()) == {250}
    full = data.splits(env.replace(env.PROFILES["full"], n_train=5000, n_val=1000))
    assert np.concatenate([full.indices["train"], full.indices["val"]]).max() >= 5000


def test_a_big_folder_sorted_by_class_keeps_all_its_classes(monkeypatch):
    labels = torch.arange(6000) // 3000
    whole = data.ImageSet(noise(6000, 1, 1), labels, ("cat", "dog"), "folder:pets")
    monkeypatch.setattr(data, "load", lambda source, split: whole)
    assert set(data.splits(env.PROFILES["demo"]).train.class_counts().values()) == {1000}


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize("left", [0, 1, 5])
def test_any_size_can_be_drawn(stratify, left):
    """Sets that leave fewer images than there are classes, or hold a class of one image."""
    labels = np.array([0] * 50 + [1] * 49 + [2])
    parts = data._draw(labels, (80 - left, 20), 0, stratify)
    assert [len(p) for p in parts] == [80 - left, 20]
    assert len(set(np.concatenate(parts))) == 100 - left
    (everything,) = data._draw(labels, (1000,), 0, stratify)
    assert sorted(everything) == list(range(100))


def test_small_set_is_shared_out_and_said(capsys):
    parts = data.splits(env.replace(PROFILE, source="digits", n_train=9000, n_val=1000))
    n = len(data.load("digits"))
    assert len(parts.train) + len(parts.val) == n and len(parts.val) == round(n / 10)
    assert f"scikit-learn digits has {n} training images" in capsys.readouterr().out


def test_splits_of_different_classes_are_refused(empty, tmp_path):
    plant(tmp_path / "train", {"cat": 3, "dog": 3})
    plant(tmp_path / "test", {"cat": 3, "doge": 3})
    with pytest.raises(ValueError, match="differ in their classes.*dog"):
        data.splits(env.replace(PROFILE, source=f"folder:{tmp_path}"))


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
        (("imagenet",), "'imagenet'.*cifar10, shapes10, cats_vs_dogs, shapes10_pair, digits"),
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


def test_silent_network_is_given_up_within_10_seconds_for_both_splits(empty, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts, and never answers
        monkeypatch.setattr(
            CIFAR10, "url", f"http://127.0.0.1:{mute.getsockname()[1]}/cifar.tar.gz"
        )
        data.load("shapes10"), data.load("shapes10", "test")  # the drawing is not what is timed
        begun = time.monotonic()
        parts = data.splits(env.replace(PROFILE, source="auto"))
        took = time.monotonic() - begun
    assert parts.train.source == parts.test.source == "Shapes-10"
    assert env.PATIENCE - 1 < took < 10


def test_download_that_stalls_is_given_up(empty, monkeypatch, capsys):
    class Stall(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            done.wait(20)

        def log_message(self, *arguments):
            pass

    done = threading.Event()
    monkeypatch.setattr(env, "PATIENCE", 0.5)
    with HTTPServer(("127.0.0.1", 0), Stall) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/cifar.tar.gz")
        data.load("shapes10")  # the drawing is not what is timed
        begun = time.monotonic()
        assert data.load("auto").source == "Shapes-10"
        assert time.monotonic() - begun < 8
        done.set()
        server.shutdown()
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


# ---------------------------------------------------------------- folders


def test_folder_with_train_and_test(empty, tmp_path):
    home = tmp_path / 'it\'s my "best" ümläut 写真'
    plant(home / "train", {"a cat": 3, "dög's": 2})
    plant(home / "test", {"a cat": 1, "dög's": 1})
    train, test = data.load(f"folder:{home}"), data.load(f"folder:{home}", "test")
    assert train.classes == test.classes == ("a cat", "dög's")
    assert train.labels.tolist() == [0, 0, 0, 1, 1] and test.labels.tolist() == [0, 1]
    assert train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 20, 21]
    assert train.source == f"folder:{home}"


def test_flat_folder_gives_a_fifth_of_each_class_to_the_test_split(empty, tmp_path):
    for k in range(50):  # numbered round robin: every fifth image would be one class only
        (tmp_path / "set" / f"c{k % 5}").mkdir(parents=True, exist_ok=True)
        picture(level=k).save(tmp_path / "set" / f"c{k % 5}" / f"{k}.png")
    train, test = (data.load(f"folder:{tmp_path}/set", split) for split in ("train", "test"))
    assert set(test.class_counts().values()) == {2} and set(train.class_counts().values()) == {8}
    levels = torch.cat([train.images, test.images])[:, 0, 0, 0].tolist()
    assert sorted(levels) == list(range(50))


def test_numbered_files_come_in_numeric_order(empty, tmp_path):
    for k in (0, 2, 9, 10, 100):
        name = "even" if k in (0, 10, 100) else "other"
        (tmp_path / "train" / name).mkdir(parents=True, exist_ok=True)
        picture(level=k).save(tmp_path / "train" / name / f"{k:03d}.png")
    found = data.load(f"folder:{tmp_path}")
    assert found.images[:, 0, 0, 0].tolist() == [0, 2, 9, 10, 100]
    assert found.labels.tolist() == [0, 1, 1, 0, 0]


def test_odd_names_and_strangers_do_no_harm(empty, tmp_path):
    plant(tmp_path / "train", {"a": 2, "b": 2})
    (tmp_path / "train" / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "a" / "._img 0.png").write_bytes(b"resource fork")
    (tmp_path / "train" / ".hidden").mkdir()
    picture(level=77).save(tmp_path / "train" / "a" / "².png")  # a digit to str, not to int
    found = data.load(f"folder:{tmp_path}")
    assert found.class_counts() == {"a": 3, "b": 2} and 77 in found.images[:, 0, 0, 0]


def test_a_changed_folder_is_read_again(empty, tmp_path):
    plant(tmp_path / "train", {"a": 2, "b": 2})
    assert data.load(f"folder:{tmp_path}").images[0, 0, 0, 0] == 0
    file = tmp_path / "train" / "a" / "img 0.png"
    before = file.stat().st_mtime_ns
    Image.fromarray(noise(1, 20, 20)[0].permute(1, 2, 0).numpy()).save(file)
    os.utime(file, ns=(before, before))  # as archives with fixed dates unpack
    assert data.load(f"folder:{tmp_path}").images[0].float().std() > 50


def test_folder_is_memory_mapped_and_read_once(empty, tmp_path, monkeypatch):
    plant(tmp_path / "train", {"a": 2, "b": 2}, size=(300, 200))
    first = data.load(f"folder:{tmp_path}")
    assert first.images.shape == (4, 3, 256, 256)
    monkeypatch.setattr(data, "read_image", lambda *a: pytest.fail("decoded twice"))
    assert torch.equal(data.load(f"folder:{tmp_path}").images, first.images)
    (cache,) = (empty / "cache").glob("*.npy")
    first.images[0] = 9  # copy-on-write: the file stays as it is
    assert not (np.load(cache)[0] == 9).all()


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"only": 3}, "holds 1 class folder .only"),
        ({}, "holds 0 class folders .none"),
        ({"a": 2, "b": 0}, "b holds no image"),
    ],
)
def test_one_class_no_class_and_an_empty_class(empty, tmp_path, counts, words):
    (tmp_path / "train").mkdir()
    plant(tmp_path / "train", counts)
    with pytest.raises(ValueError, match=words) as caught:
        data.load(f"folder:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_missing_folder_and_missing_test_split(empty, tmp_path):
    with pytest.raises(
        FileNotFoundError, match="no folder.*nowhere.*one sub-folder of images per class"
    ):
        data.load(f"folder:{tmp_path}/nowhere")
    plant(tmp_path / "train", {"a": 1, "b": 1})
    with pytest.raises(FileNotFoundError, match="no folder.*test"):
        data.load(f"folder:{tmp_path}", "test")


@pytest.mark.parametrize("which", ["img 0.png", "img 1.png"])  # the first one also tells the size
def test_one_damaged_file_is_named_and_leaves_no_cache(empty, tmp_path, which):
    plant(tmp_path / "train", {"a": 2, "b": 2})
    file = tmp_path / "train" / "a" / which
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ValueError, match=f"{which} cannot be read as an image.*or remove it"):
        data.load(f"folder:{tmp_path}")
    assert not list(empty.glob("cache/*"))
    file.unlink()
    assert len(data.load(f"folder:{tmp_path}")) == 3


# ---------------------------------------------------------------- single photographs


def stored(image: Image.Image, kind: str, **options) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


def test_colour_modes_become_rgb():
    red = Image.new("RGB", (12, 8), (250, 10, 20))
    for mode, kind in [
        ("RGB", "PNG"),
        ("CMYK", "JPEG"),
        ("P", "PNG"),
        ("RGBA", "PNG"),
        ("RGB", "WEBP"),
    ]:
        got = data.read_image(stored(red.convert(mode), kind))
        assert got.shape == (3, 8, 12) and got.dtype == torch.uint8
        assert (got.float().mean((1, 2)) - torch.tensor([250.0, 10, 20])).abs().max() < 12, mode
    for mode in ("L", "1", "LA"):
        got = data.read_image(stored(Image.new("L", (12, 8), 255).convert(mode), "PNG"))
        assert got.shape == (3, 8, 12) and (got == 255).all(), mode


def test_transparent_parts_become_white():
    glass = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert (data.read_image(stored(glass, "PNG")) == 255).all()
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    assert (data.read_image(stored(palette, "PNG", transparency=0)) == 255).all()


def test_sixteen_bit_greys_keep_their_range():
    levels = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    got = data.read_image(stored(Image.fromarray(levels), "PNG"))
    assert torch.equal(got[0].flatten(), torch.arange(256, dtype=torch.uint8))


def test_exif_rotation_is_applied():
    image = Image.new("RGB", (20, 10))
    image.paste((255, 255, 255), (0, 0, 10, 10))  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    got = data.read_image(stored(image, "PNG", exif=exif))
    assert got.shape == (3, 20, 10)
    assert (got[:, :10] == 255).all() and (got[:, 10:] == 0).all()


def test_animated_gif_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    got = data.read_image(stored(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert got[:, 0, 0].tolist() == [255, 0, 0]


def test_size_cuts_out_the_middle():
    wide = Image.new("RGB", (60, 20))
    wide.paste((255, 255, 255), (20, 0, 40, 20))
    got = data.read_image(stored(wide, "PNG"), size=20)
    assert got.shape == (3, 20, 20) and (got == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_any_truncation_is_one_sentence(kind, tmp_path):
    content = stored(Image.fromarray(noise(1, 24, 24)[0].permute(1, 2, 0).numpy()), kind).getvalue()
    file = tmp_path / "half a photo.jpg"
    refused = 0
    for part in (0, 1, 10, 30, len(content) // 3, len(content) // 2):
        file.write_bytes(content[:part])
        try:
            data.read_image(file)
        except ValueError as error:
            refused += 1
            assert "half a photo.jpg cannot be read as an image" in str(error)
    assert refused >= 5


def test_text_and_decompression_bomb(tmp_path, monkeypatch):
    (tmp_path / "page.png").write_text("<html>404</html>")
    with pytest.raises(ValueError, match="page.png cannot be read as an image"):
        data.read_image(tmp_path / "page.png")
    picture((100, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="bomb.png cannot be read as an image.*decompression bomb"):
        data.read_image(tmp_path / "bomb.png")


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
