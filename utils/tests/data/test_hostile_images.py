"""Photographs from anywhere: each is read or refused with one sentence, in little memory."""

from __future__ import annotations

import io
import resource
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from utils.data import pixels

FORMATS = {"PNG": "RGB", "JPEG": "RGB", "GIF": "P", "WEBP": "RGBA", "TIFF": "CMYK", "BMP": "L"}
MUTANTS = 240


def original(form: str, rng: np.random.Generator) -> bytes:
    picture = Image.fromarray(rng.integers(0, 255, (24, 31, 3), dtype=np.uint8)).convert(
        FORMATS[form]
    )
    file = io.BytesIO()
    picture.save(file, form)
    return file.getvalue()


def mutants() -> Iterator[tuple[str, bytes]]:
    """Truncated, overwritten, swapped, repeated, with other beginnings and other sizes in the header."""
    rng = np.random.default_rng(0)
    for n in range(MUTANTS):
        form = list(FORMATS)[n % len(FORMATS)]
        data = bytearray(original(form, rng))
        kind = n // len(FORMATS) % 5
        if kind == 0:
            data = data[: rng.integers(0, len(data))]
        elif kind == 1:
            for _ in range(rng.integers(1, 12)):
                data[rng.integers(0, len(data))] = rng.integers(0, 256)
        elif kind == 2:
            data[:4] = rng.bytes(4)
        elif kind == 3:
            at = rng.integers(0, len(data))
            data = data[at:] + data[:at]
        else:  # the first 40 bytes hold the sizes
            for at in rng.integers(4, 40, 3):
                data[at] = 255
        yield f"{form}-{n}", bytes(data)


def named(data: bytes, name: str = "photo.png") -> io.BytesIO:
    file = io.BytesIO(data)
    file.name = name
    return file


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(extra)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_every_mutant_is_read_or_refused() -> None:
    read, refused = 0, 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, data in mutants():
        try:
            image = pixels.read_image(named(data, name))
            assert image.dtype == torch.uint8 and image.shape[0] == 3, name
            read += 1
        except ValueError as error:
            assert str(error).startswith(f"{name} cannot be read as an image") and "\n" not in str(
                error
            ), name
            refused += 1
    assert read + refused == MUTANTS and read > 10 and refused > 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB: one GiB


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (20_000, 4_000)])
def test_huge_pictures_are_refused_before_they_are_unpacked(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"photo\.png cannot be read as an image"):
        pixels.read_image(named(png(*size)))


def test_a_zip_bomb_in_a_text_chunk_is_refused() -> None:
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 200_000_000, 9))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"photo\.png cannot be read"):
        pixels.read_image(named(png(10, 10, bomb)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000
