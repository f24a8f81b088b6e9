"""Folders that could be read in two ways, or hold what is not there: right, or one sentence."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from utils import data
from utils.tests.data.pictures import picture, plant
from utils.tests.data.test_folders import both, scatter


def test_each_split_in_a_folder_of_its_own_name(empty, tmp_path):
    for split in ("seg_train", "seg_test"):  # as an archive of many competitions unpacks
        scatter(tmp_path, *(f"{split}/{split}/{c}" for c in ("lake", "street")), each=4)
    scatter(tmp_path, "seg_pred/seg_pred", each=3)
    train, test = both(tmp_path)
    assert train.classes == ("lake", "street") and (len(train), len(test)) == (8, 8)


@pytest.mark.parametrize(
    "names",
    [("bullet_train", "steam_train"), ("crash_test", "train_station"), ("test tube", "flask")],
)
def test_classes_with_such_a_word_in_them_are_classes(empty, tmp_path, names):
    scatter(tmp_path, *names)
    assert both(tmp_path)[0].classes == tuple(sorted(names))


@pytest.mark.parametrize("names", [("fold1", "fold2"), ("day", "night"), ("camera a", "camera b")])
def test_folders_that_share_their_sub_folders_are_said_to_be_classes(
    empty, tmp_path, capsys, names
):
    scatter(tmp_path, *(f"{name}/{c}" for name in names for c in ("cat", "dog")), each=3)
    assert both(tmp_path)[0].classes == names
    assert "taken as classes, and the sub-folders that they share" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["café", "Épagneul brèton", "Ångström"])
def test_accents_of_two_kinds_of_disk_are_one_class(empty, tmp_path, name):
    for split, form in (("train", "NFC"), ("test", "NFD")):
        scatter(tmp_path / split, unicodedata.normalize(form, name), "dog", each=3)
    train, test = both(tmp_path)
    assert train.classes == test.classes == tuple(sorted((name, "dog")))
    assert train.labels.tolist() == test.labels.tolist()


def test_links_to_nothing_are_counted(empty, tmp_path, capsys):
    scatter(tmp_path, "a", "b")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "no such file.png")
    (tmp_path / "b" / "gone").symlink_to(tmp_path / "no such folder")
    assert sum(map(len, both(tmp_path))) == 20
    assert "left out: 2 links to files that are not there" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["lost+found", "$RECYCLE.BIN", "System Volume Information"])
def test_folders_of_the_system_are_no_classes(empty, tmp_path, name):
    scatter(tmp_path, "a", "b", name)
    assert both(tmp_path)[0].classes == ("a", "b")


@pytest.mark.parametrize("counts", [{"a": 1, "b": 9}, {"a": 1, "b": 1, "c": 2}, {"a": 1, "b": 2}])
def test_the_only_image_of_a_class_is_for_training(empty, tmp_path, counts):
    plant(tmp_path / "set", counts)
    train, test = both(tmp_path / "set")
    assert all(n > 0 for n in train.class_counts().values()) and len(test) >= 1
    assert len(train) + len(test) == sum(counts.values())


@pytest.mark.parametrize("path", ["", "  ", '""'])
def test_no_path_is_one_sentence(empty, path):
    with pytest.raises(ValueError, match="names no folder"):
        data.load(f"folder:{path}")


def test_a_folder_called_like_a_picture_is_a_folder(empty, tmp_path: Path):
    scatter(tmp_path, "a", "b")
    (tmp_path / "a" / "more.png").mkdir()
    picture().save(tmp_path / "a" / "more.png" / "1.png")
    assert sum(map(len, both(tmp_path))) == 21
