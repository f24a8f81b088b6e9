"""The blur test: a map that names what counts beats chance and the middle; an empty one does not."""

import pytest
import torch
from torch import nn

from utils import stats, trust
from utils.trust import blur

SIDE = 16


class Corner(nn.Module):
    """Class 1 if the top right corner holds stripes."""

    input_size, mean, std = SIDE, (0.0,) * 3, (1.0,) * 3

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(8.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stripes = x[:, 0, :8, 9:].diff(dim=2).abs().mean((1, 2))
        return torch.stack([torch.ones_like(stripes), self.scale * stripes], 1)


@pytest.fixture(scope="module")
def striped() -> torch.Tensor:
    images = torch.zeros(12, 3, SIDE, SIDE, dtype=torch.uint8)
    images[..., ::2] = 255
    return images


def test_the_named_square_beats_a_random_one_and_the_middle(striped):
    heat = torch.zeros(12, SIDE, SIDE)
    heat[:, :8, 8:] = 1.0
    test = trust.blur_test(Corner(), striped, heat, torch.ones(12, dtype=torch.int64))
    assert test.strongest.min() > 0.3
    assert test.gain.mean() > 0.1 and test.gain_over_centre.mean() > 0.1


def test_what_speaks_against_the_class_names_no_square(striped):
    heat = -torch.ones(12, SIDE, SIDE)
    heat[:, :8, 8:] = -5.0  # strong, and against
    test = trust.blur_test(Corner(), striped, heat, torch.ones(12, dtype=torch.int64))
    assert abs(test.gain.mean()) < 0.3  # like another random square
    signed = torch.zeros(SIDE, SIDE)
    signed[:8, :8], signed[8:, 8:] = -9.0, 1.0
    assert trust.box(signed) == (8, 8, 16, 16)


def test_all_squares_have_one_size():
    generator = torch.Generator().manual_seed(0)
    for share in (0.1, 0.25, 1.0):
        boxes = [
            blur.box(torch.rand(SIDE, 20), share),
            blur._random_box(SIDE, 20, share, generator),
            blur._centred_box(SIDE, 20, share),
        ]
        assert len({(b - t, r - left) for t, left, b, r in boxes}) == 1


def test_an_empty_map_is_not_the_most_pointed_of_all():
    maps = torch.zeros(3, SIDE, SIDE)
    maps[1, 3, 3] = 1.0
    maps[2] = 1.0
    empty, point, even = trust.spread(maps).tolist()
    assert point < 0.01 and empty == pytest.approx(even, abs=0.01) == 0.5


def test_the_number_of_images_comes_from_the_power_calculation():
    assert stats.images_needed(trust.BLUR_EFFECT, trust.BLUR_SD) == trust.BLUR_IMAGES
    assert 50 <= trust.BLUR_IMAGES <= 200
