"""Decoded pictures: each file is decoded once, kept in data/cache, and memory-mapped from there.

A folder has one store: a file of raw pixels with a slot for each picture, and an index of which
slots are filled and from what state of the picture file. So reading a part decodes that part
only, a changed file is decoded alone, and an interrupted reading goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from tqdm.auto import tqdm

from .. import env
from .pixels import VERSION, read_image

SMALL = 64  # sets of pictures up to this many pixels keep their size, as CIFAR does
LARGE = 256  # others are cut to this
SAVE_EVERY = 2000  # pictures decoded between two notes of the index
VIEW_FROM = 2**24  # bytes from which pictures are mapped in place rather than copied
SKIP = "XTL_SKIP_BROKEN"


def skip_broken() -> bool:
    """Whether pictures that cannot be read are to be left out (XTL_SKIP_BROKEN=1)."""
    return os.environ.get(SKIP, "0") not in ("", "0")


class Broken(ValueError):
    """Some pictures cannot be read; `reasons` has the cause for each by its name."""

    def __init__(self, source: str, total: int, reasons: dict[str, str]) -> None:
        self.reasons = reasons
        first = "; ".join(f"{name}: {why}" for name, why in [*reasons.items()][:3])
        more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        super().__init__(
            f"{len(reasons)} of {total:,} pictures of {source} cannot be read as an image "
            f"({first}{more}): save them again as JPEG or PNG, or set {SKIP}=1 to go on without them."
        )


def _dimensions(file: str) -> tuple[int, int]:
    """Height and width from the file's header; zeros if it has none."""
    try:
        with Image.open(file) as opened:
            return opened.height, opened.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0


class Store:
    """The decoded pictures of one folder, all of one size.

    files: every picture of the folder, in the order in which they are wanted most often.
    size: the side length; by default the set's own decision (see `decide`).
    """

    def __init__(self, root: Path, files: Sequence[str], source: str, size: int | None = None):
        self.files, self.source = list(files), source
        prefix = f"{root}{os.sep}"
        self.names = [file.removeprefix(prefix) for file in self.files]
        key = hashlib.sha256(f"{VERSION}|{root}|{size}".encode()).hexdigest()[:16]
        self.base = env.DATA / "cache" / key
        self.base.parent.mkdir(parents=True, exist_ok=True)
        with self._lock():
            self._open(size)

    def _lock(self) -> FileLock:
        return FileLock(f"{self.base}.lock")

    @property
    def size(self) -> int:
        """Side length of the decoded pictures in pixels."""
        return self.index["size"]

    @property
    def pixels(self) -> Path:
        """The file of raw pixels."""
        return self.base.with_name(f"{self.base.name}-{self.size}.u8")

    def _changed(self) -> tuple[int, bool]:
        """What tells another state of the store from the one in memory."""
        file = Path(f"{self.base}.json")
        return (file.stat().st_mtime_ns if file.exists() else 0, self.pixels.exists())

    def _load(self) -> dict:
        """The index as it is stored, empty if there is none."""
        try:
            index = json.loads(Path(f"{self.base}.json").read_text("utf-8"))
        except (OSError, ValueError):
            index = {"size": 0, "files": {}}
        self.index: dict = index
        if not self.pixels.exists():
            self._forget()
        self.seen = self._changed()
        return index

    def _forget(self) -> None:
        """All slots count as empty."""
        for entry in self.index["files"].values():
            entry[5] = 0

    def _save(self) -> None:
        env.write(Path(f"{self.base}.json"), json.dumps(self.index, separators=(",", ":")))
        self.seen = self._changed()

    def _open(self, size: int | None) -> None:
        """Bring the index up to date with the files on disk; nothing is decoded."""
        index = self._load()
        known: dict[str, list[int]] = index["files"]
        changed = False
        slots = max((entry[0] for entry in known.values()), default=-1) + 1
        for file, name in zip(self.files, self.names, strict=True):
            stat, entry = os.stat(file), known.get(name)
            state = [stat.st_size, stat.st_mtime_ns]
            if entry is None or entry[1:3] != state:
                slot = slots if entry is None else entry[0]
                slots = max(slots, slot + 1)
                shape = [0, 0] if size else _dimensions(file)
                known[name] = [slot, *state, *shape, 0]
                changed = True
        decided = size or decide([known[name][3:5] for name in self.names])
        if decided != index["size"]:
            index["size"], changed = decided, True
            self._forget()
        if changed:
            self._save()

    def read(self, rows: Sequence[int] | np.ndarray) -> tuple[torch.Tensor, dict[int, str]]:
        """Pictures uint8 (len(rows), 3, size, size), and row -> reason for those unreadable.

        Unreadable ones are black. What has not been decoded before is decoded now.
        """
        with self._lock():
            if self._changed() != self.seen:  # another process has decoded some
                self._load()
            broken = self._decode(rows)
        slots = np.array([self.index["files"][self.names[i]][0] for i in rows], dtype=int)
        return self._pictures(slots), broken

    def _decode(self, rows: Sequence[int] | np.ndarray) -> dict[int, str]:
        known = self.index["files"]
        wanted = [i for i in map(int, rows) if not known[self.names[i]][5]]
        broken: dict[int, str] = {}
        if not wanted:
            return broken
        slots = self._map("r+")
        try:
            for done, i in enumerate(
                tqdm(wanted, desc=f"reading {self.source}", unit="img", disable=len(wanted) < 500)
            ):
                entry = known[self.names[i]]
                try:
                    slots[entry[0]] = read_image(self.files[i], self.size).numpy()
                except ValueError as error:
                    why = str(error.__cause__ or error)
                    broken[i] = why.replace(f" {self.files[i]!r}", "")
                    continue
                entry[5] = 1
                if done % SAVE_EVERY == SAVE_EVERY - 1:
                    slots.flush()
                    self._save()
        finally:  # an interrupted reading keeps what it has
            slots.flush()
            self._save()
        return broken

    def _map(self, mode: Literal["c", "r+"]) -> np.memmap:
        """All slots (S, 3, size, size); the file grows with the index, its holes take no room."""
        count = max(entry[0] for entry in self.index["files"].values()) + 1
        length = count * 3 * self.size**2
        if not self.pixels.exists() or self.pixels.stat().st_size < length:
            with self.pixels.open("ab") as handle:
                handle.truncate(length)
        return np.memmap(self.pixels, np.uint8, mode, shape=(count, 3, self.size, self.size))

    def _pictures(self, slots: np.ndarray) -> torch.Tensor:
        """The pictures in these slots: mapped where they are many and lie side by side."""
        stored = self._map("c")  # copy-on-write: changes stay in memory
        run = len(slots) and (np.diff(slots) == 1).all()
        if run and len(slots) * stored[0].nbytes >= VIEW_FROM:
            return torch.from_numpy(stored[slots[0] : slots[0] + len(slots)])
        return torch.from_numpy(np.ascontiguousarray(stored[slots]))


def decide(shapes: Sequence[Sequence[int]]) -> int:
    """One side length for a set from the heights and widths of all its pictures.

    Small pictures (half of the set within SMALL pixels) keep their typical size, so that icons
    and CIFAR's are not blown up; all others become LARGE. A few odd pictures change nothing.
    """
    sides = np.array([shape for shape in shapes if min(shape) > 0])
    if not len(sides):
        return LARGE
    typical = int(np.median(sides.min(1)))
    return max(1, typical) if np.median(sides.max(1)) <= SMALL else LARGE


def decoded(files: Sequence[Path], source: str, size: int | None = None) -> torch.Tensor:
    """Pictures of equal size, uint8 (N, 3, size, size), in the order of `files`.

    size: by default the set's own decision. Raises Broken if any of them cannot be read.
    """
    paths = [str(file.resolve()) for file in files]
    store = Store(Path(os.path.commonpath(map(os.path.dirname, paths))), paths, source, size)
    images, broken = store.read(range(len(files)))
    if broken:
        raise Broken(source, len(files), {store.names[i]: why for i, why in broken.items()})
    return images
