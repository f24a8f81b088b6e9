"""Image folders as people have them: layouts, formats, sizes, damaged files, and the cache."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from utils import data, env
from utils.data import cache, tree
from utils.tests.data.pictures import noise, picture, plant

DEMO = env.PROFILES["demo"]


def both(folder: Path) -> tuple[data.ImageSet, data.ImageSet]:
    train, test = (data.load(f"folder:{folder}", split) for split in ("train", "test"))
    return train, test


def levels(*sets: data.ImageSet) -> list[int]:
    """The red level of every image: which files were read."""
    return sorted(torch.cat([s.images[:, 0, 0, 0] for s in sets]).tolist())


def scatter(root: Path, *places: str, each: int = 10) -> int:
    """`each` pictures in every place; how many that makes."""
    for place in places:
        (root / place).mkdir(parents=True, exist_ok=True)
        for k in range(each):
            picture((30, 30), k).save(root / place / f"{k}.png")
    return each * len(places)


# ---------------------------------------------------------------- layouts


def test_train_and_test_folders(empty, tmp_path):
    home = tmp_path / 'it\'s my "best" ümläut 写真'
    plant(home / "train", {"a cat": 3, "dög's": 2})
    plant(home / "test", {"a cat": 1, "dög's": 1})
    train, test = both(home)
    assert train.classes == test.classes == ("a cat", "dög's")
    assert train.labels.tolist() == [0, 0, 0, 1, 1] and test.labels.tolist() == [0, 1]
    assert train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 20, 21]
    assert train.source == f"folder:{home}"


def test_flat_folder_gives_a_fifth_of_each_class_to_the_test_split(empty, tmp_path):
    for k in range(50):  # numbered round robin: every fifth image would be one class only
        (tmp_path / "set" / f"c{k % 5}").mkdir(parents=True, exist_ok=True)
        picture(level=k).save(tmp_path / "set" / f"c{k % 5}" / f"{k}.png")
    train, test = both(tmp_path / "set")
    assert set(test.class_counts().values()) == {2} and set(train.class_counts().values()) == {8}
    assert levels(train, test) == list(range(50))


@pytest.mark.parametrize(
    ("train", "test", "more"),
    [
        ("train", "val", ()),
        ("Training", "Testing", ()),
        ("TRAIN", "Test", ()),
        ("training_set", "test_set", ()),
        ("train", "dev", ()),
        ("train", "eval", ("dev",)),
        ("seg_train", "seg_test", ()),
        ("train2017", "val2017", ()),
        ("my-train-images", "my-test-images", ()),
        ("train", "test", ("valid",)),
        ("Train", "test", ("Validation",)),
    ],
)
def test_usual_names_of_splits(empty, tmp_path, train, test, more):
    names = (train, test, *more)
    total = scatter(tmp_path, *(f"{split}/{c}" for split in names for c in "ab"))
    sets = both(tmp_path)
    assert sets[0].classes == ("a", "b")
    assert len(sets[1]) == 20 and sum(map(len, sets)) == total


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_own_validation_images_validate(empty, tmp_path, val):
    for level, split in enumerate(("train", val, "test")):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(8):
                picture(level=100 * level + k).save(tmp_path / split / name / f"{k}.png")
    parts = data.splits(replace(DEMO, source=f"folder:{tmp_path}"))
    for part, low in ((parts.train, 0), (parts.val, 100), (parts.test, 200)):
        assert len(part) == 16 and set(levels(part)) == set(range(low, low + 8))
    assert not set(parts.indices["train"]) & set(parts.indices["val"])


def test_validation_images_test_where_no_test_folder_is(empty, tmp_path, capsys):
    scatter(tmp_path, "train/a", "train/b", "val/a", "val/b")
    assert len(both(tmp_path)[1]) == 20
    assert capsys.readouterr().out.count("the validation images are the test set") == 1


def test_a_training_folder_alone_is_shared_out(empty, tmp_path, capsys):
    plant(tmp_path / "train", {"a": 10, "b": 10})
    assert [len(s) for s in both(tmp_path)] == [16, 4]
    assert "a fifth of each class is the test set" in capsys.readouterr().out


@pytest.mark.parametrize(
    "places",
    [
        ("bus", "car", "train"),
        ("test", "essay", "exam"),
        ("valid", "void"),
        ("bus/day", "bus/night", "train/day", "train/night"),
    ],
)
def test_classes_called_like_splits(empty, tmp_path, places):
    total = scatter(tmp_path, *places)
    sets = both(tmp_path)
    assert sets[0].classes == tuple(sorted({place.split("/")[0] for place in places}))
    assert sum(map(len, sets)) == total


@pytest.mark.parametrize(
    "places",
    [
        ("a/p1", "a/p2", "b/p3", "b/p4"),
        ("a", "a/patient7", "b"),
        ("a/2021/may", "a/2022", "b/2021/june/raw"),
    ],
)
def test_images_in_sub_folders_of_a_class(empty, tmp_path, places):
    total = scatter(tmp_path, *places)
    sets = both(tmp_path)
    assert sets[0].classes == ("a", "b") and sum(map(len, sets)) == total


def test_splits_inside_the_class_folders(empty, tmp_path):
    scatter(tmp_path, *(f"{c}/{s}" for c in ("a", "b", "c") for s in ("train", "test")))
    train, test = both(tmp_path)
    assert train.classes == ("a", "b", "c") and len(train) == len(test) == 30


@pytest.mark.parametrize("inner", ["archive", "archive/archive"])
def test_a_folder_in_a_folder(empty, tmp_path, inner):
    scatter(tmp_path / inner, "train/a", "train/b", "test/a", "test/b")
    assert [len(s) for s in both(tmp_path)] == [20, 20]


def test_links_to_folders_are_followed_and_circles_are_not(empty, tmp_path):
    scatter(tmp_path / "elsewhere", "cats", each=3)
    scatter(tmp_path / "set", "dogs", each=3)
    (tmp_path / "set" / "cats").symlink_to(tmp_path / "elsewhere" / "cats")
    (tmp_path / "set" / "dogs" / "again").symlink_to(tmp_path / "set")
    assert sum(map(len, both(tmp_path / "set"))) == 6


def test_home_and_quotes_in_the_path(empty, tmp_path, monkeypatch):
    scatter(tmp_path / "my set", "a", "b")
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in ("folder:~/my set", f'folder:"{tmp_path}/my set"', f"folder:'{tmp_path}/my set'"):
        assert len(data.load(source)) == 16


def test_a_class_without_test_images_is_a_class_all_the_same(empty, tmp_path):
    plant(tmp_path / "train", {"a": 3, "b": 3, "c": 3})
    plant(tmp_path / "test", {"a": 3, "b": 3})
    train, test = both(tmp_path)
    assert train.classes == test.classes == ("a", "b", "c") and test.class_counts()["c"] == 0


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (("only",), "holds 1 class folder with images .only"),
        ((), "holds 0 class folders with images .none"),
        (("train/a", "test/a"), "holds 1 class folder with images .a"),
        (("train", "test"), "holds test/ and train/ without class folders: put.*train/cat"),
        (("val/a", "val/b", "test/a", "test/b"), "holds test/ and val/ and no train/: name"),
        (("train/a", "train/b", "test/a", "test/doge"), "no training image of doge"),
    ],
)
def test_folders_that_cannot_be_used_get_one_sentence(empty, tmp_path, places, words):
    scatter(tmp_path, *places)
    with pytest.raises(ValueError, match=words) as caught:
        data.load(f"folder:{tmp_path}")
    assert "\n" not in str(caught.value)
    assert not {"remove", "delete"} & set(str(caught.value).lower().split())


def test_missing_folder(empty, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder.*nowhere.*one sub-folder of images"):
        data.load(f"folder:{tmp_path}/nowhere")


# ---------------------------------------------------------------- what is left out


def test_system_files_are_passed_over_and_counted(empty, tmp_path, capsys):
    total = scatter(tmp_path, "a", "b")
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".thumbnails"):
        scatter(tmp_path, name, f"a/{name}", each=1)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png"):
        (tmp_path / "b" / name).write_bytes(b"no image")
    sets = both(tmp_path)
    assert sets[0].classes == ("a", "b") and sum(map(len, sets)) == total
    assert "left out: 12 hidden or system files" in capsys.readouterr().out


def test_what_is_left_out_is_said_once_in_one_line(empty, tmp_path, capsys):
    total = scatter(tmp_path, "a", "b")
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    for k in range(3):
        (tmp_path / "a" / f"{k}.jxl").write_bytes(b"an image that Pillow cannot read")
    (tmp_path / "c").mkdir()
    picture().save(tmp_path / "loose.png")
    assert sum(map(len, both(tmp_path))) == total
    (line,) = capsys.readouterr().out.splitlines()
    for part in (
        "3 .jxl files (to read them: pip install pillow-jxl-plugin)",
        "1 .txt file (no known picture format)",
        "1 image outside the class folders",
        "1 folder without a readable image (c/)",
    ):
        assert part in line


def test_iphone_photographs_are_read_or_named(empty, tmp_path, capsys):
    scatter(tmp_path, "a", "b")
    (tmp_path / "a" / "IMG_1.HEIC").write_bytes(b"heic")
    if ".heic" in tree.suffixes():
        pytest.skip("pillow-heif is installed here")
    both(tmp_path)
    assert "1 .heic file (to read them: pip install pillow-heif)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["x.jfif", "x.JPEG", "x.avif", "x.ppm", "x.pgm", "x.tga", "x.jp2", "x.webp", "x.TIF"]
)
def test_every_format_that_pillow_reads(empty, tmp_path, name):
    if Path(name).suffix.lower() not in tree.suffixes():
        pytest.skip("this Pillow is built without it")
    for c in "ab":
        (tmp_path / c).mkdir()
        image = picture((70, 70)).convert("L" if name.endswith("pgm") else "RGB")
        image.save(tmp_path / c / name, "JPEG" if name.endswith("jfif") else None)
        picture((70, 70)).save(tmp_path / c / "other.png")
    assert sum(map(len, both(tmp_path))) == 4


def test_an_unknown_folder_beside_the_splits_is_named(empty, tmp_path, capsys):
    scatter(tmp_path, "train/a", "train/b", "test/a", "test/b", "extra/a")
    assert [len(s) for s in both(tmp_path)] == [20, 20]
    assert "left out: 10 images in extra/" in capsys.readouterr().out


def test_unlabelled_test_images_are_named(empty, tmp_path, capsys):
    scatter(tmp_path, "train/a", "train/b", "val/a", "val/b", "test")
    assert [len(s) for s in both(tmp_path)] == [20, 20]
    assert "left out: 10 images in test/ outside its class folders" in capsys.readouterr().out


# ---------------------------------------------------------------- order and size


def test_numbered_files_come_in_numeric_order(empty, tmp_path):
    for k in (0, 2, 9, 10, 100):
        for split in ("train", "test"):
            folder = tmp_path / split / ("even" if k in (0, 10, 100) else "other")
            folder.mkdir(parents=True, exist_ok=True)
            picture(level=k).save(folder / f"{k:03d}.png")
    train, _ = both(tmp_path)
    assert train.images[:, 0, 0, 0].tolist() == [0, 2, 9, 10, 100]
    assert train.labels.tolist() == [0, 1, 1, 0, 0]


def test_odd_names_do_no_harm(empty, tmp_path):
    plant(tmp_path, {"a": 2, "b": 2})
    picture(level=77).save(tmp_path / "a" / "².png")  # a digit to str, not to int
    assert 77 in levels(*both(tmp_path))


@pytest.mark.parametrize(
    ("odd", "usual", "size"),
    [
        ((48, 48), (800, 600), 256),
        ((8, 60), (300, 200), 256),
        ((1, 1), (90, 90), 256),
        ((800, 600), (32, 32), 32),
        ((8, 60), (40, 50), 40),
        ((3000, 20), (64, 64), 64),
    ],
)
@pytest.mark.parametrize("where", ["train/a", "test/b"])
def test_the_size_is_the_sets_decision(empty, tmp_path, odd, usual, size, where):
    """One odd picture, be it the first or in the test split, changes nothing."""
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / place).mkdir(parents=True)
        for k in range(3):
            shape = odd if (place, k) == (where, 0) else usual
            picture(shape).save(tmp_path / place / f"{k}.png")
    assert {tuple(s.images.shape) for s in both(tmp_path)} == {(6, 3, size, size)}


# ---------------------------------------------------------------- damaged files


def spoil(*files: Path) -> None:
    for file in files:
        file.write_bytes(file.read_bytes()[:40])


@pytest.mark.parametrize("names", [("a/0",), ("a/3", "b/0"), ("a/0", "a/1", "a/9", "b/3", "b/7")])
def test_all_damaged_files_are_counted_and_some_named(empty, tmp_path, names):
    scatter(tmp_path, "a", "b")
    spoil(*(tmp_path / f"{name}.png" for name in names))
    with pytest.raises(
        data.Broken, match=f"{len(names)} of 20 pictures.*XTL_SKIP_BROKEN=1"
    ) as info:
        for split in ("train", "test"):
            data.load(f"folder:{tmp_path}", split)
    assert set(info.value.reasons) == {f"{name}.png" for name in names}
    assert f"{names[0]}.png" in str(info.value) and "\n" not in str(info.value)
    assert "remove" not in str(info.value)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_files_that_were_just_being_written_are_named(empty, tmp_path, monkeypatch, count):
    """Unreadable when the set is taken, and whole when the others are counted."""
    scatter(tmp_path, "train/a", "train/b", "test/a", "test/b", each=5)
    original, opened = cache.read_image, []

    def read(file, size):
        opened.append(file)
        if len(opened) <= count:
            raise ValueError("cut off")
        return original(file, size)

    monkeypatch.setattr(cache, "read_image", read)
    with pytest.raises(data.Broken, match=rf"{count} of 20 pictures.*: cut off") as info:
        data.load(f"folder:{tmp_path}")
    assert len(info.value.reasons) == count


@pytest.mark.parametrize("names", [("a/0",), ("a/3", "b/0"), ("a/0", "a/1", "a/9", "b/3", "b/7")])
def test_going_on_without_them_if_asked(empty, tmp_path, monkeypatch, capsys, names):
    scatter(tmp_path, "a", "b")
    spoil(*(tmp_path / f"{name}.png" for name in names))
    monkeypatch.setenv("XTL_SKIP_BROKEN", "1")
    assert sum(map(len, both(tmp_path))) == 20 - len(names)
    parts = data.splits(replace(DEMO, source=f"folder:{tmp_path}"))
    assert sum(map(len, (parts.train, parts.val, parts.test))) == 20 - len(names)
    assert "going on without" in capsys.readouterr().out


def test_decoding_does_not_begin_again(empty, tmp_path, monkeypatch):
    scatter(tmp_path, "train/a", "train/b", "test/a", "test/b", each=5)
    spoil(tmp_path / "train" / "b" / "4.png")
    with pytest.raises(data.Broken):
        data.load(f"folder:{tmp_path}")
    opened: list[str] = []
    original = cache.read_image
    monkeypatch.setattr(cache, "read_image", lambda f, s: (opened.append(f), original(f, s))[1])
    with pytest.raises(data.Broken):
        data.load(f"folder:{tmp_path}")
    assert {Path(f).name for f in opened} == {"4.png"}
    picture((30, 30), 4).save(tmp_path / "train" / "b" / "4.png")
    assert len(data.load(f"folder:{tmp_path}")) == 10


def test_an_interrupted_reading_goes_on(empty, tmp_path, monkeypatch):
    scatter(tmp_path, "train/a", "train/b", "test/a", "test/b", each=5)
    original, opened = cache.read_image, []

    def read(file: str, size: int) -> torch.Tensor:
        opened.append(file)
        if len(opened) == 7:
            raise KeyboardInterrupt
        return original(file, size)

    monkeypatch.setattr(cache, "read_image", read)
    with pytest.raises(KeyboardInterrupt):
        data.load(f"folder:{tmp_path}")
    assert len(data.load(f"folder:{tmp_path}")) == 10 and len(opened) == 7 + 4


# ---------------------------------------------------------------- the cache


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The files that are decoded, as they are."""
    files: list[str] = []
    original = cache.read_image
    monkeypatch.setattr(cache, "read_image", lambda f, s: (files.append(f), original(f, s))[1])
    return files


def test_each_file_is_decoded_once_and_only_if_it_is_used(empty, tmp_path, opened):
    scatter(tmp_path, "a", "b", each=40)
    small = replace(DEMO, source=f"folder:{tmp_path}", n_train=8, n_val=4, n_test=4)
    first = data.splits(small)
    assert len(opened) == 16
    again = data.splits(small)
    assert len(opened) == 16 and torch.equal(again.train.images, first.train.images)
    sets = both(tmp_path)
    assert len(opened) == 80 and sum(map(len, sets)) == 80
    assert torch.equal(sets[0].images[first.indices["train"]], first.train.images)


@pytest.mark.parametrize("change", ["touch", "other pixels", "new file", "file gone"])
def test_a_change_costs_one_file(empty, tmp_path, opened, change):
    scatter(tmp_path, *(f"{split}/{c}" for split in ("train", "test") for c in "ab"))
    before = both(tmp_path)[0]
    opened.clear()
    file = tmp_path / "train" / "a" / "3.png"
    if change == "touch":
        os.utime(file, ns=(1, 1))
    elif change == "other pixels":
        picture((30, 30), 99).save(file)
    elif change == "new file":
        picture((30, 30), 99).save(file.with_name("3 b.png"))
    else:
        file.unlink()
    after = both(tmp_path)[0]
    assert len(opened) == (0 if change == "file gone" else 1)
    expected = levels(before)
    if change in ("other pixels", "file gone"):
        expected.remove(3)
    if change in ("other pixels", "new file"):
        expected = sorted([*expected, 99])
    assert levels(after) == expected
    names = sorted(p.suffix for p in (empty / "cache").iterdir() if p.suffix != ".lock")
    assert names == [".json", ".u8"], "one store, and no second one"


def test_a_changed_file_of_the_same_date_is_read_again(empty, tmp_path):
    plant(tmp_path, {"a": 2, "b": 2})
    both(tmp_path)
    file = tmp_path / "a" / "img 0.png"
    before = file.stat().st_mtime_ns
    Image.fromarray(noise(1, 20, 20)[0].permute(1, 2, 0).numpy()).save(file)
    os.utime(file, ns=(before, before))  # as archives with fixed dates unpack
    assert max(image.float().std() for s in both(tmp_path) for image in s.images) > 72


def test_a_large_set_is_mapped_and_never_changed(empty, tmp_path, monkeypatch):
    plant(tmp_path / "train", {"a": 2, "b": 2}, size=(300, 200))
    plant(tmp_path / "test", {"a": 1, "b": 1}, size=(300, 200))
    monkeypatch.setattr(cache, "VIEW_FROM", 1)
    first = data.load(f"folder:{tmp_path}")
    assert first.images.shape == (4, 3, 256, 256)
    kept = first.images[0].clone()
    first.images[0] = 9  # copy-on-write: the file stays as it is
    assert torch.equal(data.load(f"folder:{tmp_path}").images[0], kept)


@pytest.mark.parametrize("loss", ["*.u8", "*.json", "*"])
def test_a_damaged_or_emptied_cache_is_filled_again(empty, tmp_path, loss):
    scatter(tmp_path, "a", "b")
    expected = levels(*both(tmp_path))
    for file in (empty / "cache").glob(loss):
        file.unlink()
    assert levels(*both(tmp_path)) == expected
    (index,) = (empty / "cache").glob("*.json")
    index.write_text("{half an ind")
    assert levels(*both(tmp_path)) == expected


def test_the_fingerprint_follows_the_files(empty, tmp_path):
    scatter(tmp_path, "a", "b")
    source = f"folder:{tmp_path}"
    before = data.files_hash(source)
    assert before == data.files_hash(source) and data.files_hash("digits") == ""
    os.utime(tmp_path / "a" / "3.png", ns=(1, 1))
    touched = data.files_hash(source)
    picture().save(tmp_path / "b" / "new.png")
    assert len({before, touched, data.files_hash(source)}) == 3


# ---------------------------------------------------------------- tiny sets


@pytest.mark.parametrize(
    "counts",
    [
        {"a": 6, "b": 6},
        {"a": 1, "b": 11},
        {"a": 4, "b": 4, "c": 4},
        {"a": 100, "b": 100},
        {"a": 200, "b": 20, "c": 2},
        {f"c{k:03d}": 2 for k in range(102)},
        {f"c{k}": 1 for k in range(4)},
    ],
)
@pytest.mark.parametrize("name", ["smoke", "demo", "paper"])
def test_small_sets_have_three_parts(empty, tmp_path, counts, name):
    """None empty, none shared, every class to train with where the images allow it."""
    plant(tmp_path, counts, size=(8, 8))
    parts = data.splits(replace(env.PROFILES[name], source=f"folder:{tmp_path}"))
    sizes = [len(p) for p in (parts.train, parts.val, parts.test)]
    assert min(sizes) >= 1 and sizes[0] >= max(sizes[1:])
    assert not set(parts.indices["train"]) & set(parts.indices["val"])
    if min(counts.values()) > 1:
        assert min(parts.train.class_counts().values()) >= 1
    if name == "demo":
        assert sum(sizes) == sum(counts.values())


def test_too_few_images_are_one_sentence(empty, tmp_path):
    plant(tmp_path, {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="has 1 training image and 1 to test with.*one at least"):
        data.splits(replace(DEMO, source=f"folder:{tmp_path}"))


def test_a_small_set_says_how_it_is_shared_out(empty, tmp_path, capsys):
    plant(tmp_path, {"a": 6, "b": 6})
    data.splits(replace(DEMO, source=f"folder:{tmp_path}"))
    line = capsys.readouterr().out
    assert "fewer images than the profile demo asks for: using 8 to train, 2 to validate" in line
    plant(tmp_path / "many", {f"c{k}": 20 for k in range(10)})
    data.splits(replace(DEMO, source=f"folder:{tmp_path}/many", n_train=4, n_val=4, n_test=4))
    assert "leave out 6 of 10 classes" in capsys.readouterr().out


def test_decide_ignores_files_without_a_header():
    assert cache.decide([(0, 0), (0, 0), (32, 32)]) == 32
    assert cache.decide([(0, 0)]) == cache.LARGE
    assert cache.decide(np.full((5, 2), 500).tolist()) == cache.LARGE
