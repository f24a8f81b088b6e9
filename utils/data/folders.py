"""Image folders: the splits and classes found on disk, and pictures decoded when they are taken."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from .cache import Broken, Store, skip_broken
from .layout import Layout, plural, survey
from .sets import ImageSet, draw_rows
from .tree import number_of

_noted: set[str] = set()


def note(text: str) -> None:
    """Print a sentence, once in a process: a set is opened by every notebook step that uses it."""
    if text not in _noted:
        _noted.add(text)
        print(text)


@dataclass(frozen=True)
class FolderSet:
    """One split of an image folder. Labels are known at once; pictures are decoded when taken."""

    labels: torch.Tensor  # int64 (N,)
    classes: tuple[str, ...]
    source: str
    store: Store
    rows: np.ndarray  # where the split's pictures lie in the store
    val_from: int | None = None  # from here on they come from the folder's own validation split
    test: FolderSet | None = None  # of "train": the folder's test split, opened together

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: torch.Tensor | np.ndarray | list[int] | range) -> ImageSet:
        """The images at `indices`, decoded.

        Raises Broken, with the number of all unreadable files of the folder, if one of these is.
        """
        index = np.asarray(indices, dtype=np.int64)
        images, broken = self.store.read(self.rows[index])
        if broken:
            _, more = self.store.read(range(len(self.store.files)))
            reasons = {self.store.names[i]: why for i, why in (broken | more).items()}
            raise Broken(self.source, len(self.store.files), reasons)
        return ImageSet(images, self.labels[index], self.classes, self.source)

    def whole(self) -> ImageSet:
        """All images of the split, decoded."""
        return self.subset(range(len(self)))

    def without_broken(self) -> FolderSet:
        """The same split without the pictures that cannot be read; says how many those are."""
        _, broken = self.store.read(self.rows)
        if not broken:
            return self
        names = ", ".join(sorted(self.store.names[i] for i in broken)[:3])
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        note(
            f"{self.source}: going on without {plural(len(broken), 'unreadable picture')} "
            f"({names}{more})."
        )
        good = np.array([row not in broken for row in self.rows.tolist()])
        val_from = None if self.val_from is None else int(good[: self.val_from].sum())
        labels = self.labels[torch.from_numpy(good)]
        return replace(self, labels=labels, rows=self.rows[good], val_from=val_from)


def _listed(by_class: dict[str, list[str]], classes: tuple[str, ...]) -> list[tuple[str, int]]:
    """Files with their labels: class by class, or in the set's own order if files are numbered."""
    pairs = [(file, c) for c, name in enumerate(classes) for file in by_class.get(name, [])]
    numbers = [number_of(file) for file, _ in pairs]
    if -1 not in numbers and len(set(numbers)) == len(numbers):
        pairs = [pairs[i] for i in np.argsort(numbers)]
    return pairs


def _check_classes(layout: Layout, source: str) -> None:
    """ValueError if the test split has a class that no training image belongs to."""
    train = set(layout.files.get("train", {})) | set(layout.files.get("all", {}))
    extra = sorted(set(layout.classes) - train)
    if extra:
        raise ValueError(
            f"The splits of {source} differ in their classes: there is no training image of "
            f"{', '.join(extra[:3])}; call the class folders the same in all splits."
        )


def _drawn(labels: np.ndarray) -> np.ndarray:
    """Rows of a test set, a fifth of each class, sorted; a class's only image is for training."""
    able = np.flatnonzero(np.bincount(labels)[labels] > 1)
    if not len(able):
        able = np.arange(len(labels))
    n_test = min(max(1, round(len(labels) / 5)), len(able) // 2)
    return np.sort(able[draw_rows(labels[able], (n_test, len(able)), 0, True)[0]])


def open_folder(folder: Path, source: str) -> dict[str, FolderSet]:
    """{"train": ..., "test": ...} of an image folder; see `layout.survey` for what it may look like.

    Without a test split its validation images are the test split; without either, a fifth of each
    class is. A validation split beside a test split is the end of "train", from `val_from` on.
    Says in one line each what was left out and which split was made.
    """
    layout = survey(folder, source)
    _check_classes(layout, source)
    splits = {name: _listed(files, layout.classes) for name, files in layout.files.items()}
    notes = list(layout.notes)
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
        notes.append("no test folder: the validation images are the test set")
    val = splits.pop("val", [])
    train = splits.get("train") or splits.get("all") or []
    pairs = [*train, *val, *splits.get("test", [])]
    labels = torch.tensor([label for _, label in pairs])
    rows = {"train": np.arange(len(train) + len(val))}
    rows["test"] = np.arange(len(rows["train"]), len(pairs))
    if "test" not in splits:
        if "train" in splits:
            notes.append("no test folder: a fifth of each class is the test set")
        test = _drawn(labels.numpy())
        rows = {"train": np.setdiff1d(np.arange(len(pairs)), test), "test": test}
    for text in notes:
        note(f"{source}: {text}.")
    store = Store(layout.root, [file for file, _ in pairs], source)
    sets = {}
    for split, at in rows.items():
        val_from = len(train) if val and split == "train" else None
        sets[split] = FolderSet(labels[at], layout.classes, source, store, at, val_from)
    if skip_broken():
        sets = {split: folder_set.without_broken() for split, folder_set in sets.items()}
    sets["train"] = replace(sets["train"], test=sets["test"])
    return sets
