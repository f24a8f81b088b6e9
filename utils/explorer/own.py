"""One's own photographs: paths as people type them, and noticing that a file has changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

QUOTES = {"“": "”", "‘": "’", "'": "'", '"': '"', "«": "»"}


def typed_path(text: str) -> Path:
    """The file that somebody means who types or pastes `text`.

    Understands quotes around it, `~`, environment variables, file:// addresses, and the
    backslashes that a terminal puts before spaces.
    """
    text = text.strip()
    if len(text) > 1 and QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    if text.lower().startswith("file://"):
        text = url2pathname(urlsplit(text).path)
    path = Path(text).expanduser()
    if path.exists():
        return path
    path = Path(os.path.expandvars(text)).expanduser()
    if not path.exists() and os.sep == "/" and "\\" in text:
        path = Path(text.replace("\\", "")).expanduser()
    return path


def existing_file(path: Path) -> None:
    """Raises ValueError, saying what is wrong, if there is no file at this path."""
    if path.is_dir():
        raise ValueError(f"{path.name} is a folder: type the path of a picture in it.")
    if not path.exists():
        raise ValueError(f"There is no file {path}: check the spelling, or give the whole path.")


def state_of(sources: Sequence[Any]) -> tuple:
    """A value that differs as soon as a file among `sources` has changed; uploads never do."""
    states: list[Any] = []
    for source in sources:
        if isinstance(source, Path):
            try:
                facts = source.stat()
                states.append((str(source), facts.st_mtime_ns, facts.st_size))
            except OSError:  # gone: read_image will say so
                states.append((str(source), None, None))
        else:
            states.append(source.serial)
    return tuple(states)
