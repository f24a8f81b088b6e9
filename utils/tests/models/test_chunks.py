"""Less memory than hoped for: the chunk is halved, nothing is lost, and the numbers stay."""

from __future__ import annotations

import pytest
import torch

from utils import explain, models, train
from utils.models import per_chunk
from utils.tests.conftest import QUICK, tiny
from utils.tests.conftest import images as pictures

FULL = torch.cuda.OutOfMemoryError("CUDA out of memory.")


def scarce(holds: int):
    """A stand-in for a GPU that holds so many rows."""
    asked = []

    def run(rows: slice, chunk: int) -> list[int]:
        asked.append(rows.stop - rows.start)
        if asked[-1] > holds:
            raise FULL
        return list(range(rows.start, rows.stop))

    return run, asked


@pytest.mark.parametrize("holds", [1, 3, 5, 8, 100])
def test_every_row_comes_once_and_in_order(holds: int, capsys: pytest.CaptureFixture) -> None:
    run, asked = scarce(holds)
    found = [row for part in per_chunk(run, 21, 8) for row in part]
    assert found == list(range(21))
    said = capsys.readouterr().out
    assert ("does not suffice: going on with" in said) == (holds < 8)
    assert sum(n > holds for n in asked) <= 3  # it does not climb again


def test_not_even_one_row_and_a_chunk_of_none() -> None:
    with pytest.raises(RuntimeError, match="Not even one image fits into the GPU's memory"):
        list(per_chunk(scarce(0)[0], 4, 4))
    with pytest.raises(ValueError, match="chunk must be at least 1, not 0"):
        list(per_chunk(scarce(4)[0], 4, 0))


@pytest.mark.parametrize("method", ["gradcam", "smoothgrad", "integrated_gradients"])
def test_maps_stay_the_same_when_memory_is_scarce(
    method: str, capsys: pytest.CaptureFixture
) -> None:
    model, images, options = tiny("resnet"), pictures(6), QUICK.get(method, {})
    model.input_size = 64  # a last stage of 2 x 2
    calm = explain.explain(model, images, 1, method, **options)

    def refuse(_module: torch.nn.Module, given: tuple[torch.Tensor]) -> None:
        if len(given[0]) > 2:
            raise FULL

    hook = model.register_forward_pre_hook(refuse)
    pressed = explain.explain(model, images, 1, method, chunk=8, **options)
    logits = models.logits_of(model, images)
    hook.remove()
    assert "going on with 2 images at once" in capsys.readouterr().out
    assert torch.allclose(pressed, calm, atol=1e-5 * float(calm.abs().max()))
    assert torch.allclose(logits, models.logits_of(model, images), atol=1e-5)


def test_training_says_what_to_change(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from utils.data import ImageSet
    from utils.train import Recipe

    monkeypatch.setenv("XTL_DEVICE", "cpu")
    model = models.build("resnet34_slim", 2, "none")
    black = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    some = ImageSet(black, torch.arange(8) % 2, ("a", "b"), "zeros")

    def refuse(_module: torch.nn.Module, _given: tuple) -> None:
        raise FULL

    model.register_forward_pre_hook(refuse)
    with pytest.raises(RuntimeError, match="batch of 8 images .* give a recipe with a smaller"):
        train.fit(model, some, some, Recipe(1, "adam", 1e-3, 0.0, batch=8), tmp_path)
