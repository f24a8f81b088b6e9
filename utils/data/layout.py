"""What a folder of images holds: its classes, its splits, and what in it cannot be used.

Nothing is decoded here. Every file on disk is counted, and what is left out is named with the
reason.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

# formats that Pillow registers but cannot open by itself, or that hold no picture
_NOT_PICTURES = {".eps", ".ps", ".mpg", ".mpeg", ".h5", ".hdf", ".grib", ".bufr", ".wmf", ".emf"}
# pictures that Pillow opens with a plug-in or not at all
_REMEDIES = {
    ".heic": "pip install pillow-heif",
    ".heif": "pip install pillow-heif",
    ".avif": "update Pillow",
    ".jxl": "pip install pillow-jxl-plugin",
    **dict.fromkeys((".cr2", ".nef", ".arw", ".dng", ".svg"), "save as JPEG or PNG"),
}
_JUNK_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information"}
_JUNK_FILES = {"thumbs.db", "desktop.ini", "icon\r"}
_SPLITS = {
    "train": re.compile(r"(train|training|trn)([ _-]?(set|data|images))?"),
    "val": re.compile(r"(val|valid|validation|dev)([ _-]?(set|data|images))?"),
    "test": re.compile(r"(test|testing|tst)([ _-]?(set|data|images))?"),
}


@cache
def suffixes() -> frozenset[str]:
    """Endings of the picture files that Pillow reads here; with pillow-heif, .heic too."""
    if importlib.util.find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    readable = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return frozenset(readable - _NOT_PICTURES)


def split_of(name: str) -> str | None:
    """The split that a folder's name stands for ("Training" -> "train"), None if for none."""
    return next((s for s, names in _SPLITS.items() if names.fullmatch(name.lower())), None)


def plural(n: int, noun: str, ending: str = "s") -> str:
    """`1 image`, `1,200 images`, `2 classes`."""
    return f"{n:,} {noun}{ending if n != 1 else ''}"


@dataclass
class Tree:
    """A folder: its pictures, its sub-folders, and what it holds besides."""

    path: Path
    pictures: list[str] = field(default_factory=list)  # paths of those directly in it
    folders: list[Tree] = field(default_factory=list)  # those with pictures somewhere below
    unread: Counter[str] = field(default_factory=Counter)  # ending -> files, below too
    junk: int = 0  # hidden files, previews of other programs, below too
    empty: list[str] = field(default_factory=list)  # sub-folders without any picture

    @property
    def name(self) -> str:
        return self.path.name

    def all_pictures(self) -> list[str]:
        """Pictures here and in all sub-folders, numbered ones in numeric order."""
        own = sorted(self.pictures, key=_numeric)
        return own + [p for tree in self.folders for p in tree.all_pictures()]


def number_of(path: str) -> int:
    """The number that a picture is called by, -1 if its name is no number."""
    stem = os.path.splitext(os.path.basename(path))[0]
    return int(stem) if stem.isdecimal() else -1


def _numeric(path: str) -> tuple[int, str]:
    """A sort key by which 10.png follows 9.png."""
    return (number_of(path), path)


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower() or "without an ending"


def walk(path: Path, _above: tuple[str, ...] = ()) -> Tree:
    """The tree of pictures below a folder. Links are followed, but not in a circle."""
    tree = Tree(path)
    above = (*_above, os.path.realpath(path))
    for entry in sorted(os.scandir(path), key=lambda e: e.name):
        name = entry.name.lower()
        if name.startswith(".") or name in _JUNK_FOLDERS | _JUNK_FILES:
            tree.junk += 1
        elif entry.is_dir():
            if os.path.realpath(entry.path) in above:
                continue
            below = walk(Path(entry.path), above)
            tree.unread += below.unread
            tree.junk += below.junk
            if below.pictures or below.folders:
                tree.folders.append(below)
            else:
                tree.empty.append(entry.name)
        elif _ending(name) in suffixes():
            tree.pictures.append(entry.path)
        else:
            tree.unread[_ending(name)] += 1
    return tree


@dataclass(frozen=True)
class Layout:
    """The pictures of a folder by split and class, and sentences on what was made of it."""

    root: Path
    files: dict[str, dict[str, list[str]]]  # split ("all" if there is none) -> class -> paths
    notes: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes that have an image in any split, sorted."""
        return tuple(sorted({name for by_class in self.files.values() for name in by_class}))


def _classes_of(tree: Tree) -> dict[str, list[str]]:
    return {folder.name: folder.all_pictures() for folder in tree.folders}


def _by_split(tree: Tree) -> dict[str, list[Tree]]:
    """Sub-folders by the split that their name stands for; others under ""."""
    trees: dict[str, list[Tree]] = {}
    for folder in tree.folders:
        trees.setdefault(split_of(folder.name) or "", []).append(folder)
    return trees


def _splits_outside(
    tree: Tree, source: str, notes: list[str]
) -> dict[str, dict[str, list[str]]] | None:
    """PATH/<split>/<class>/<image>, or None if the folder is not laid out so.

    Raises ValueError where split folders hold no class folders, and where train/ is missing.
    """
    named = _by_split(tree)
    others = named.pop("", [])
    train = named.get("train", [])
    kept_apart = "val" in named or "test" in named
    nested = any(folder.folders for folders in named.values() for folder in folders)
    names = " and ".join(f"{f.name}/" for f in tree.folders)
    if not named or (others and not (nested and train and kept_apart)):
        if nested and train:
            notes.append(f"{names} are taken as classes, since no test folder lies beside them")
        return None
    if not train:
        raise ValueError(
            f"{source} holds {names} and no train/: name the folder with the training images train."
        )
    if not nested:
        raise ValueError(
            f"{source} holds {names} without class folders: put the images of each class into a "
            "folder of its own, such as train/cat."
        )
    if others:
        images = sum(len(folder.all_pictures()) for folder in others)
        beside = ", ".join(f"{folder.name}/" for folder in others)
        notes.append(f"left out: {plural(images, 'image')} in {beside} (no name of a split)")
    splits: dict[str, dict[str, list[str]]] = {}
    for split, folders in named.items():
        for folder in folders:
            if folder.pictures:
                loose = plural(len(folder.pictures), "image")
                notes.append(f"left out: {loose} in {folder.name}/ outside its class folders")
            for name, files in _classes_of(folder).items():
                splits.setdefault(split, {}).setdefault(name, []).extend(files)
    return splits


def _splits_inside(tree: Tree) -> dict[str, dict[str, list[str]]] | None:
    """PATH/<class>/<split>/<image>, or None if not every class folder is laid out so."""
    splits: dict[str, dict[str, list[str]]] = {}
    for folder in tree.folders:
        named = _by_split(folder)
        if folder.pictures or "" in named or "train" not in named or len(named) < 2:
            return None
        for split, parts in named.items():
            pictures = [p for part in parts for p in part.all_pictures()]
            splits.setdefault(split, {})[folder.name] = pictures
    return splits or None


def _left_out(tree: Tree) -> list[str]:
    """One part of a sentence for each kind of thing that is on disk and not used."""
    parts = []
    for ending, count in sorted(tree.unread.items()):
        remedy = _REMEDIES.get(ending)
        reason = f"to read them: {remedy}" if remedy else "no known picture format"
        parts.append(f"{plural(count, f'{ending} file')} ({reason})")
    if tree.pictures:
        parts.append(f"{plural(len(tree.pictures), 'image')} outside the class folders")
    if tree.empty:
        names = ", ".join(f"{name}/" for name in tree.empty[:3])
        parts.append(f"{plural(len(tree.empty), 'folder')} without a readable image ({names})")
    if tree.junk:
        parts.append(plural(tree.junk, "hidden or system file"))
    return parts


def survey(root: Path, source: str) -> Layout:
    """What `root` holds, as splits and classes.

    Known layouts: <split>/<class>/..., <class>/<split>/..., <class>/...; splits may be called
    train, Training, val, valid, test, Testing and the like; images may lie in sub-folders of
    their class. Raises FileNotFoundError if there is no such folder, ValueError if it holds fewer
    than two classes.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"There is no folder {root}: give folder:PATH with one sub-folder of images per class."
        )
    tree = walk(root.resolve())
    while len(tree.folders) == 1 and not tree.pictures and tree.folders[0].folders:
        if split_of(tree.folders[0].name) == "train":
            break
        tree = tree.folders[0]  # an archive often unpacks to a folder in a folder
    notes: list[str] = []
    files = (
        _splits_outside(tree, source, notes) or _splits_inside(tree) or {"all": _classes_of(tree)}
    )
    left_out = _left_out(tree)
    if left_out:
        notes.append("left out: " + "; ".join(left_out))
    layout = Layout(tree.path, files, tuple(notes))
    if len(layout.classes) < 2:
        reasons = f" ({'; '.join(left_out)} left out)" if left_out else ""
        raise ValueError(
            f"{source} holds {plural(len(layout.classes), 'class folder')} with images "
            f"({', '.join(layout.classes) or 'none'}){reasons}; "
            "a classifier needs two or more, each with its images."
        )
    return layout
