"""A folder on disk: its pictures, its sub-folders, and what else lies in it."""

from __future__ import annotations

import importlib.util
import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

# formats that Pillow registers but cannot open by itself, or that hold no picture
_NOT_PICTURES = {".eps", ".ps", ".mpg", ".mpeg", ".h5", ".hdf", ".grib", ".bufr", ".wmf", ".emf"}
_JUNK_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
_JUNK_FILES = {"thumbs.db", "desktop.ini", "icon\r"}


@cache
def suffixes() -> frozenset[str]:
    """Endings of the picture files that Pillow reads here; with pillow-heif, .heic too."""
    if importlib.util.find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    readable = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return frozenset(readable - _NOT_PICTURES)


@dataclass
class Tree:
    """A folder: its pictures, its sub-folders, and what it holds besides."""

    path: Path
    pictures: list[str] = field(default_factory=list)  # paths of those directly in it
    folders: list[Tree] = field(default_factory=list)  # those with pictures somewhere below
    unread: Counter[str] = field(default_factory=Counter)  # ending -> files, below too
    dangling: int = 0  # links to files that are not there, below too
    junk: int = 0  # hidden files, previews of other programs, below too
    empty: list[str] = field(default_factory=list)  # sub-folders without any picture

    @property
    def name(self) -> str:
        """The folder's name, with accents as one letter each, however the disk writes them."""
        return unicodedata.normalize("NFC", self.path.name)

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
            tree.dangling += below.dangling
            if below.pictures or below.folders:
                tree.folders.append(below)
            else:
                tree.empty.append(entry.name)
        elif not os.path.exists(entry.path):
            tree.dangling += 1
        elif _ending(name) in suffixes():
            tree.pictures.append(entry.path)
        else:
            tree.unread[_ending(name)] += 1
    return tree
