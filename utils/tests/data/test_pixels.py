"""From files to tensors, level for level as PIL does it, and corruptions."""

from __future__ import annotations

import io

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from utils import data, env
from utils.data import shapes
from utils.tests.data.pictures import noise, picture

IDENTITY = dict(mean=(0.0,) * 3, std=(1 / 255,) * 3)  # levels in, levels out
PROFILE = env.PROFILES["smoke"]
REAL = env.DATA / "cifar10" / "train"


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


RAMP = np.arange(256).reshape(16, 16)  # the levels that every scale below should give


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((RAMP * 4095 / 255).round().astype(np.uint16), "PNG"),  # 12 bits, as scanners write them
        ((RAMP * 4095 / 255).round().astype(np.uint16), "TIFF"),
        ((RAMP * 257).astype(np.uint16), "TIFF"),
        (RAMP.astype(np.uint16), "PNG"),  # 8 bits in 16
        ((RAMP / 255).astype(np.float32), "TIFF"),
        (RAMP.astype(np.float32), "TIFF"),
        ((RAMP * 16.0 - 1024).astype(np.float32), "TIFF"),  # a CT scanner's numbers
        ((RAMP * 1_000_000).astype(np.int32), "TIFF"),
        ((RAMP * 16 - 1000).astype(np.int32), "TIFF"),
        (RAMP.astype(np.int32), "TIFF"),
    ],
)
def test_grey_values_of_any_type_are_seen(values, kind):
    got = data.read_image(stored(Image.fromarray(values), kind))
    assert (got[0].int() - torch.from_numpy(RAMP)).abs().max() <= 1
    assert torch.equal(got[0], got[2])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("level", [0, 1])
def test_flat_grey_pictures_are_no_error(dtype, level):
    got = data.read_image(stored(Image.fromarray(np.full((4, 4), level, dtype)), "TIFF"))
    assert got.shape == (3, 4, 4) and len(got.unique()) == 1


def test_values_that_are_not_finite_are_black():
    values = np.array([[np.nan, np.inf], [0.5, 1.0]], np.float32)
    got = data.read_image(stored(Image.fromarray(values), "TIFF"))
    assert got[0].tolist() == [[0, 0], [128, 255]]


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
