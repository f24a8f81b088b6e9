"""What a folder of images holds: its classes, its splits, and what in it cannot be used.

Nothing is decoded here. Every file on disk is counted, and what is left out is named with the
reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .tree import Tree, walk

# pictures that Pillow opens with a plug-in or not at all
_REMEDIES = {
    ".heic": "pip install pillow-heif",
    ".heif": "pip install pillow-heif",
    ".avif": "update Pillow",
    ".jxl": "pip install pillow-jxl-plugin",
    **dict.fromkeys((".cr2", ".nef", ".arw", ".dng", ".svg"), "save as JPEG or PNG"),
}
_SPLITS = {
    "train": re.compile(r"(train|training|trn)([ _-]?(set|data|images))?"),
    "val": re.compile(r"(val|valid|validation|dev)([ _-]?(set|data|images))?"),
    "test": re.compile(r"(test|testing|tst|eval|evaluation|holdout)([ _-]?(set|data|images))?"),
}


def split_of(name: str) -> str | None:
    """The split that a folder's name stands for ("Training" -> "train"), None if for none."""
    return next((s for s, names in _SPLITS.items() if names.fullmatch(name.lower())), None)


def _split_in(name: str) -> str | None:
    """The only split that a word of the name stands for ("seg_train", "val2017"), None if for none."""
    words = re.split(r"[\W_\d]+", name.lower())
    splits = {split for split in map(split_of, words) if split}
    return splits.pop() if len(splits) == 1 else None


def plural(n: int, noun: str, ending: str = "s") -> str:
    """`1 image`, `1,200 images`, `2 classes`."""
    return f"{n:,} {noun}{ending if n != 1 else ''}"


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
    classes: dict[str, list[str]] = {}
    for folder in tree.folders:
        classes.setdefault(folder.name, []).extend(folder.all_pictures())
    return classes


def _unpacked(tree: Tree) -> Tree:
    """The folder inside, where an archive was unpacked to a folder in a folder."""
    while len(tree.folders) == 1 and not tree.pictures and tree.folders[0].folders:
        tree = tree.folders[0]
    return tree


def _by_split(tree: Tree) -> dict[str, list[Tree]]:
    """Sub-folders by the split that their name stands for; others under ""."""
    return _sorted_by(tree, split_of)


def _sorted_by(tree: Tree, rule: Callable[[str], str | None]) -> dict[str, list[Tree]]:
    trees: dict[str, list[Tree]] = {}
    for folder in tree.folders:
        trees.setdefault(rule(folder.name) or "", []).append(folder)
    return trees


def _named_splits(tree: Tree) -> dict[str, list[Tree]]:
    """As _by_split; names such as seg_train count where all of the splits hold class folders."""
    named = _by_split(tree)
    if named.keys() != {""}:
        return named
    found = _sorted_by(tree, _split_in)
    splits = [_unpacked(folder) for split in found if split for folder in found[split]]
    complete = "train" in found and ("test" in found or "val" in found)
    return found if complete and all(len(s.folders) > 1 for s in splits) else named


def _alike(tree: Tree) -> str:
    """A sentence where the classes all hold the same sub-folders, which may be the classes."""
    inside = [tuple(sorted(below.name for below in folder.folders)) for folder in tree.folders]
    if len(set(inside)) > 1 or len(inside) < 2 or len(inside[0]) < 2:
        return ""
    names = " and ".join(f"{folder.name}/" for folder in tree.folders[:3])
    return (
        f"{names} are taken as classes, and the sub-folders that they share ({inside[0][0]}/ and "
        f"{inside[0][1]}/) as parts of each; to have those as classes, give one of the folders above"
    )


def _splits_outside(
    tree: Tree, source: str, notes: list[str]
) -> dict[str, dict[str, list[str]]] | None:
    """PATH/<split>/<class>/<image>, or None if the folder is not laid out so.

    Raises ValueError where split folders hold no class folders, and where train/ is missing.
    """
    named = _named_splits(tree)
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
            for name, files in _classes_of(_unpacked(folder)).items():
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
            splits.setdefault(split, {}).setdefault(folder.name, []).extend(pictures)
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
    if tree.dangling:
        parts.append(f"{plural(tree.dangling, 'link')} to files that are not there")
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
    files = _splits_outside(tree, source, notes) or _splits_inside(tree)
    if files is None:
        files = {"all": _classes_of(tree)}
        if alike := _alike(tree):
            notes.append(alike)
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
