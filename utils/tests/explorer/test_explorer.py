"""The explorer: filters, cache, giving up, and the panel that binds it, without a browser."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from utils import explain, models
from utils.data import ImageSet, shapes
from utils.explorer import KEPT, OWN, Explorer, Panel, Stale, View
from utils.widgets import uploads

BOTH = ("ResNet", "ViT")


@pytest.fixture(scope="module")
def images() -> ImageSet:
    labels = torch.arange(12) % 10
    drawn, masks = shapes.draw(labels, seed=1)
    return ImageSet(drawn, labels, tuple(shapes.CLASSES), "Shapes-10", masks)


@pytest.fixture(scope="module")
def nets() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    return {
        "ResNet": models.build("resnet34_slim", 10, "none"),
        "ViT": models.build("vit_mini", 10, "none"),
    }


@pytest.fixture
def explorer(nets: dict[str, torch.nn.Module], images: ImageSet) -> Explorer:
    return Explorer(nets, images, trust={"vit.lrp.pointing": 0.5, "resnet.lrp.pointing": 0.25})


@pytest.fixture
def panel(explorer: Explorer, images: ImageSet) -> Panel:
    return Panel(explorer, {"test": images, "validation": images.subset([3, 4])})


def test_filters_keep_what_they_say(explorer: Explorer) -> None:
    said = explorer.said["ResNet"]
    right, wrong = explorer.kept(BOTH, "right"), explorer.kept(BOTH, "wrong")
    assert sorted(right + wrong) == list(range(12)) and all(said.correct[i] for i in right)
    assert explorer.kept(BOTH, label=3) == [3]
    other = explorer.said["ViT"].predicted
    assert explorer.kept(BOTH, "disagree") == [
        i for i in range(12) if said.predicted[i] != other[i]
    ]
    taken = int(said.predicted[0])
    assert set(explorer.kept(BOTH, taken_for=taken)) == {
        i for i in range(12) if said.predicted[i] == taken
    }
    assert explorer.kept(BOTH, confidence=(0.999, 1.0)) == []


@pytest.mark.parametrize("method", ["gradcam", "lrp", "attention", "saliency"])
def test_the_map_is_the_one_of_explain(explorer: Explorer, method: str) -> None:
    (answer,) = explorer.answers(View(2, ("ViT",), method, target=4))["ViT"]
    expected = explain.explain(explorer.models["ViT"], explorer.images[2:3], 4, method)[0]
    assert torch.equal(answer.heatmap, expected) and answer.target == 4


def test_both_versions_explain_the_class_predicted_before(explorer: Explorer) -> None:
    view = View(1, BOTH, "gradcam", change="erase", box=(0, 0, 32, 16))
    for before, after in explorer.answers(view).values():
        assert before.target == after.target == int(before.probabilities.argmax())
    changed = (explorer.changed(view) != explorer.images[1]).any(0)
    assert changed[:, :16].any() and not changed[:, 16:].any()


def test_the_cache_is_used_and_bounded(explorer: Explorer) -> None:
    view = View(0, ("ViT",), "saliency")
    assert explorer.answers(view)["ViT"][0] is explorer.answers(view)["ViT"][0]
    for i in range(KEPT + 20):
        explorer.answers(
            View(i % 12, ("ViT",), "attention", (("block", i // 12 % 12), ("head", i // 144 % 3)))
        )
    assert len(explorer._kept) <= KEPT


def test_what_nobody_wants_is_given_up_and_not_kept(explorer: Explorer) -> None:
    passes: list[int] = []
    with pytest.raises(Stale):
        explorer.answers(View(5, ("ResNet",), "smoothgrad"), lambda: len(passes) < 2, passes.append)
    assert passes == [1, 2] and not explorer._kept
    assert not explorer.models["ResNet"]._forward_pre_hooks


def test_trust_numbers_are_those_of_the_method(explorer: Explorer) -> None:
    assert explorer.numbers(View(0, BOTH, "lrp")) == {
        "ResNet": {"pointing": 0.25},
        "ViT": {"pointing": 0.5},
    }
    assert explorer.numbers(View(0, BOTH, "saliency")) == {}


def test_controls_without_effect_hide(panel: Panel) -> None:
    def shown() -> set[str]:
        return {n for n, k in panel.knobs.items() if k.layout.display != "none"}

    panel.knobs["steps"].value = 8
    panel.knobs["method"].value = "gradcam"
    assert "layer" in shown() and not {"block", "head", "steps", "rows"} & shown()
    panel.knobs["models"].value = ("ViT",)
    panel.knobs["method"].value = "attention"
    assert {"block", "head"} <= shown() and "layer" not in shown()
    panel.knobs["models"].value = BOTH  # attention does not fit a ResNet
    assert panel.knobs["method"].value != "attention" and "attention" not in panel.explorer.methods(
        BOTH
    )
    panel.knobs["method"].value = "integrated_gradients"
    assert {"steps", "baseline"} <= shown()
    panel.knobs["region"].value = "blur"
    assert {"rows", "columns"} <= shown()


def test_every_control_changes_the_picture(panel: Panel) -> None:
    panel.knobs["models"].value, panel.knobs["method"].value = ("ViT",), "attention"
    seen = {panel.picture.value}
    for name, value in [
        ("image", 4),
        ("block", 2),
        ("head", 1),
        ("target", 3),
        ("overlay", 0.2),
        ("region", "erase"),
        ("rows", (0, 6)),
        ("columns", (0, 9)),
        ("colour_scale", "shared"),
        ("models", BOTH),
        ("method", "lrp"),
        ("images", "validation"),
    ]:
        panel.knobs[name].value = value
        assert panel.picture.value not in seen, name
        seen.add(panel.picture.value)


def test_an_empty_filter_says_so_and_keeps_the_picture(panel: Panel) -> None:
    before = panel.picture.value
    panel.knobs["confidence"].value = (1.0, 1.0)
    assert (
        panel.status.value == "No image passes this filter: widen it."
        and panel.picture.value == before
    )
    panel.knobs["confidence"].value = (0.0, 1.0)
    assert "of 12" in panel.status.value


def photograph(mode: str, size: tuple[int, int] = (90, 60), **more: object) -> io.BytesIO:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).convert(mode)
    file = io.BytesIO()
    picture.save(file, "TIFF" if mode == "CMYK" else "PNG", **more)
    file.seek(0)
    file.name = f"photo-{mode}.png"
    return file


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "CMYK", "P"])
def test_own_photographs(panel: Panel, mode: str) -> None:
    panel.knobs["images"].value = OWN
    assert panel.status.value.startswith("Choose pictures of your own")
    before = panel.picture.value
    panel._own([photograph(mode)])
    assert "own" in panel.status.value and panel.picture.value != before
    panel.knobs["images"].value = "test"
    assert "of 12" in panel.status.value


def test_a_broken_upload_is_one_sentence(panel: Panel) -> None:
    panel.knobs["images"].value = OWN
    panel._own([photograph("RGB")])
    before = panel.picture.value
    for content in (b"this is no image", photograph("RGB").getvalue()[:200], b""):
        panel._own(uploads(({"name": "broken.png", "content": memoryview(content)},)))
        assert (
            panel.status.value.startswith("broken.png cannot be read")
            and "\n" not in panel.status.value
        )
        assert panel.picture.value == before
    panel.path.value = "no such file.jpg"
    assert panel.status.value.startswith("no such file.jpg cannot be read")


def test_uploads_of_either_ipywidgets() -> None:
    new = uploads(({"name": "a.png", "content": memoryview(b"1")},))
    old = uploads({"a.png": {"metadata": {}, "content": b"1"}})
    assert (
        [(f.name, f.read()) for f in new] == [(f.name, f.read()) for f in old] == [("a.png", b"1")]
    )


def test_the_newest_question_wins(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a running loop: a slow map is given up when the slider moves on, and never overwrites."""
    run = explain.METHODS["smoothgrad"].run
    gave_up = threading.Event()

    def slow(
        model: torch.nn.Module, x: torch.Tensor, targets: torch.Tensor, **options: object
    ) -> torch.Tensor:
        try:
            for _ in range(200):
                model(x)
                time.sleep(0.01)
        except Stale:
            gave_up.set()
            raise
        return run(model, x, targets, **options)

    monkeypatch.setitem(
        explain.METHODS,
        "smoothgrad",
        explain.METHODS["smoothgrad"].__class__(
            "smoothgrad",
            "SmoothGrad",
            slow,
            options=dict(samples=1, sigma=0.1, seed=0),
        ),
    )

    async def session() -> None:
        panel.knobs["method"].value = "smoothgrad"
        await asyncio.sleep(0.3)
        assert "forward passes" in panel.status.value  # progress is told
        panel.knobs["method"].value = "saliency"
        for _ in range(100):
            await asyncio.sleep(0.05)
            if "Saliency" in panel.status.value:
                break

    asyncio.run(session())
    assert gave_up.is_set() and "Saliency" in panel.status.value


def test_memory_stays_flat_over_many_steps(panel: Panel) -> None:
    panel.knobs["models"].value, panel.knobs["method"].value = ("ViT",), "saliency"
    sizes = []
    tracemalloc.start()
    try:
        for step in range(72):
            panel.knobs["image"].value = step % 12
            if step in (35, 71):
                gc.collect()  # figures are rings of references, which wait for the collector
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 1e6, sizes


def test_nothing_is_written(panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    panel.knobs["images"].value = OWN
    panel._own([photograph("RGB")])
    assert list(tmp_path.iterdir()) == []
