"""Plots: every function gives a Figure, and colours and limits mean what is promised."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")  # before pyplot: no window
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils import plots
from utils.plots import style as style_module
from utils.train import History

CLASSES = tuple("abcdefghij")
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (3, 3, 16, 16), generator=GENERATOR, dtype=torch.uint8)
MAPS = torch.rand(3, 16, 16, generator=GENERATOR)
SIGNED_MAPS = torch.randn(3, 16, 16, generator=GENERATOR)
PROBABILITIES = torch.randn(3, 10, generator=GENERATOR).softmax(1)
TITLES = ["first", "second", "third"]
CURVE = History([2.0, 1.5, 1.0, 0.5], [0.1, 0.2, 0.3, 0.6], [1.2, 0.8], [0.2, 0.5], 2, 1.0)
MATRIX = np.arange(9).reshape(3, 3)
RELIABILITY = (np.array([0.3, 0.9]), np.array([0.4, 0.8]), np.array([0.5, 0.5]), 0.1)
SIDE = (IMAGES[0], MAPS[0], PROBABILITIES[0])
SCORES = {"accuracy": 0.8, "f1": 0.7}
BOUNDS = {"accuracy": (0.7, 0.9), "f1": (0.6, 0.8)}

CALLS: dict[str, Callable[[], Figure]] = {
    "plot_images": lambda: plots.plot_images(IMAGES, TITLES, columns=2, suptitle="title"),
    "plot_sheet": lambda: plots.plot_sheet([IMAGES, IMAGES], TITLES, "title", ["up", "down"]),
    "plot_counts": lambda: plots.plot_counts(
        {"train": {"a": 3, "b": 2}, "val": {"a": 1, "b": 1}}, "title"
    ),
    "plot_history": lambda: plots.plot_history({"one": CURVE, "two": CURVE}, "title"),
    "plot_confusion": lambda: plots.plot_confusion({"x": MATRIX, "y": MATRIX}, "abc", "title"),
    "plot_class_accuracy": lambda: plots.plot_class_accuracy(
        {"x": np.array([0.9, 0.1])}, "ab", "title"
    ),
    "plot_reliability": lambda: plots.plot_reliability({"x": RELIABILITY}, "title"),
    "plot_metrics": lambda: plots.plot_metrics({"x": SCORES}, {"x": BOUNDS}, "title"),
    "plot_explanations": lambda: plots.plot_explanations(
        IMAGES, MAPS, TITLES, PROBABILITIES, CLASSES, suptitle="title"
    ),
    "plot_map_grid": lambda: plots.plot_map_grid(
        IMAGES, {"m": MAPS, "s": SIGNED_MAPS}, TITLES, ["s"], suptitle="title"
    ),
    "plot_effect": lambda: plots.plot_effect(SIDE, SIDE, CLASSES, 1, suptitle="title"),
    "plot_lines": lambda: plots.plot_lines(
        {"a": ([0, 1], [1, 2]), "b": ([0, 1], [2, 1])}, "x", "y", "title"
    ),
    "plot_mosaic": lambda: plots.plot_mosaic({"p": torch.randn(2, 2, 4, 4)}, "unit", "title"),
    "plot_maps": lambda: plots.plot_maps(
        IMAGES[0], {"a": MAPS[0], "b": MAPS[0]}, "cat", suptitle="title"
    ),
    "plot_scatter": lambda: plots.plot_scatter(
        [1, 2], [3, 4], [5, 6], "x", "y", "z", "title", {"this": 0}
    ),
    "plot_heads": lambda: plots.plot_heads({"entropy": torch.rand(2, 3)}, "title"),
    "plot_head_matrix": lambda: plots.plot_head_matrix(
        {"a": torch.rand(2, 3), "b": torch.rand(2, 3)}, "score", "title", {"b": "deviation"}
    ),
    "plot_iav": lambda: plots.plot_iav(
        {"p": {"mine": torch.rand(3, 2, 3), "uniform attention": torch.rand(2, 3)}},
        "score",
        "title",
    ),
    "plot_scores": lambda: plots.plot_scores(
        {"mass": {"ViT": {"lrp": (0.5, 0.4, 0.6), "random": (0.1, 0.0, 0.2)}}}, ["random"], "title"
    ),
    "plot_panels": lambda: plots.plot_panels(
        {"p": {"lrp": ([0, 1], [1, 0]), "random": ([0, 1], [1, 1])}},
        "x",
        "y",
        "title",
        dashed=["random"],
    ),
    "plot_agreement": lambda: plots.plot_agreement({"p": (["a", "b"], np.eye(2))}, "tau", "title"),
}


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    """The course's style, and no figure left behind."""
    with plt.rc_context():
        plots.use_style()
        yield
        plt.close("all")


def panels(figure: Figure) -> list[Axes]:
    """The axes that hold a picture."""
    return [ax for ax in figure.axes if ax.images]


def heats(figure: Figure) -> list[Axes]:
    """The axes that hold a map (one number for each place), not a photograph."""
    return [ax for ax in panels(figure) if ax.images[0].get_array().ndim == 2]


def texts(figure: Figure) -> list[str]:
    """All titles."""
    found = [figure.get_suptitle(), *(ax.get_title() for ax in figure.axes)]
    return [text for text in found if text]


# ---------------------------------------------------------------- every function


def test_no_plot_is_left_out():
    public = {
        name
        for name, _ in inspect.getmembers(plots, inspect.isfunction)
        if name.startswith("plot_")
    }
    assert public == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_gives_one_drawable_figure(name):
    before = plt.get_fignums()
    figure = CALLS[name]()
    assert isinstance(figure, Figure)
    assert len(plt.get_fignums()) == len(before) + 1
    assert "title" in texts(figure)
    figure.canvas.draw()
    assert np.asarray(figure.canvas.buffer_rgba()).std() > 0, "the picture is not blank"


@pytest.mark.parametrize("name", CALLS)
def test_colour_maps_are_the_two_of_the_course(name):
    used = {
        artist.get_cmap().name
        for ax in CALLS[name]().axes
        for artist in (*(i for i in ax.images if i.get_array().ndim == 2), *ax.collections)
        if artist.get_array() is not None and artist.get_array().size
    }
    assert used <= {"viridis", "cividis", "RdBu_r"}


# ---------------------------------------------------------------- maps


def test_signed_maps_have_white_at_zero():
    heat = torch.tensor([[-1.0, 0.0], [0.5, 2.0]])
    figure = plots.plot_map_grid(IMAGES[:1], {"s": heat[None]}, ["t"], ["s"], overlays=False)
    (shown,) = (ax.images[0] for ax in heats(figure))
    assert shown.get_cmap().name == "RdBu_r" and shown.get_clim() == (-1, 1)
    red, green, blue, _ = shown.to_rgba(np.zeros(1))[0]
    assert min(red, green, blue) > 0.95, "zero is white"
    colours = shown.to_rgba(shown.get_array())
    assert colours[0, 0, 2] > colours[0, 0, 0], "against is blue"
    assert colours[1, 1, 0] > colours[1, 1, 2], "for is red"


def test_unsigned_maps_are_viridis_from_zero():
    figure = plots.plot_map_grid(IMAGES, {"m": MAPS}, TITLES, overlays=False)
    assert {ax.images[0].get_cmap().name for ax in heats(figure)} == {"viridis"}
    assert {ax.images[0].get_clim() for ax in heats(figure)} == {(0, 1)}
    assert plots.scaled(SIGNED_MAPS[0], signed=False).min() == 0


@pytest.mark.parametrize("signed", [True, False])
def test_scaled_keeps_zero_and_order(signed):
    values = plots.scaled(SIGNED_MAPS[0], signed)
    assert np.abs(values).max() == 1 and values.min() >= (-1 if signed else 0)
    halved = plots.scaled(SIGNED_MAPS[0] * 0.5, signed)
    np.testing.assert_allclose(values, halved, atol=1e-6)  # each map by its own size
    np.testing.assert_allclose(
        plots.scaled(torch.tensor([[0.0, 1.0]]), signed, limit=4.0), [[0, 0.25]]
    )


def test_one_hot_pixel_does_not_hide_the_rest():
    heat = torch.ones(32, 32)
    heat[0, 0] = 1e6
    assert plots.scaled(heat, False)[5, 5] == 1


@pytest.mark.parametrize("level", [0.0, 3.0, -2.0])
@pytest.mark.parametrize("signed", [True, False])
def test_constant_map(level, signed):
    heat = torch.full((16, 16), level)
    values = plots.scaled(heat, signed)
    assert np.isfinite(values).all() and (np.abs(values) <= 1).all() and np.ptp(values) == 0
    painted = plots.overlay(IMAGES[0], heat, signed)
    assert np.isfinite(painted).all()
    if level == 0:  # nothing to paint: the grey image itself
        grey = plots.to_rgb(IMAGES[0]).mean(-1)
        np.testing.assert_allclose(painted, grey[..., None].repeat(3, -1))


def test_overlay_is_strong_where_the_map_is():
    heat = torch.zeros(16, 16)
    heat[:8] = 1
    painted, grey = plots.overlay(IMAGES[0], heat), plots.to_rgb(IMAGES[0]).mean(-1)[..., None]
    assert painted.shape == (16, 16, 3) and painted.min() >= 0 and painted.max() <= 1
    np.testing.assert_allclose(painted[8:], grey[8:].repeat(3, -1))
    assert np.abs(painted[:8] - grey[:8]).mean() > 0.1
    np.testing.assert_allclose(plots.overlay(IMAGES[0], heat, strength=0.0), grey.repeat(3, -1))


# ---------------------------------------------------------------- shared limits


def test_rows_share_their_limits_only_when_asked():
    weak, strong = torch.full((1, 16, 16), 1.0), torch.full((1, 16, 16), 4.0)

    def levels(shared: bool) -> list[float]:
        figure = plots.plot_map_grid(
            IMAGES[:1], {"weak": weak, "strong": strong}, ["t"], overlays=False, shared=shared
        )
        return [float(ax.images[0].get_array().max()) for ax in heats(figure)]

    assert levels(True) == [0.25, 1] and levels(False) == [1, 1]


def test_before_and_after_share_one_scale():
    faded = (IMAGES[0], MAPS[0] / 4, PROBABILITIES[0])
    figure = plots.plot_effect(SIDE, faded, CLASSES, 1)
    before, after = (ax.images[0].get_array() for ax in heats(figure))
    assert after.max() == pytest.approx(0.25, rel=0.05) and before.max() == 1
    assert {ax.images[0].get_clim() for ax in heats(figure)} == {(0, 1)}


def test_class_counts_share_their_axis():
    first, second = CALLS["plot_counts"]().axes
    assert first.get_ylim() == second.get_ylim()
    assert first.get_title() == "train: 5 images"


def test_confusion_colours_are_the_mistakes_shares_of_the_row():
    """The diagonal is printed in bold and has no colour; the scale ends at the worst mistake."""
    figure = CALLS["plot_confusion"]()
    shown = [ax for ax in figure.axes if ax.get_xlabel() == "predicted"]
    share = MATRIX / MATRIX.sum(1, keepdims=True)
    mistakes = share[~np.eye(3, dtype=bool)]
    for ax in shown:
        mesh = ax.collections[0]
        assert mesh.get_clim() == (0, mistakes.max())
        values = np.ma.asarray(mesh.get_array()).reshape(3, 3)
        assert np.ma.getmaskarray(values).diagonal().all()
        np.testing.assert_allclose(values[~np.eye(3, dtype=bool)].data, mistakes)
        assert [t.get_text() for t in ax.texts] == [str(n) for n in MATRIX.flat]
        assert [t.get_weight() == "bold" for t in ax.texts] == list(np.eye(3, dtype=bool).flat)


@pytest.mark.parametrize("n", [2, 15, 102])
def test_charts_of_any_number_of_classes_stay_readable(n):
    rng = np.random.default_rng(0)
    names = [f"class {k}" for k in range(n)]
    matrix = rng.integers(0, 9, (n, n))
    figures = [
        plots.plot_confusion({"x": matrix}, names, "title"),
        plots.plot_class_accuracy({"x": rng.random(n)}, names, "title"),
        plots.plot_counts({"train": dict(zip(names, rng.integers(1, 9, n), strict=True))}, "title"),
    ]
    for figure in figures:
        assert len(figure.axes[0].get_yticklabels()) <= 20
        assert max(figure.get_size_inches()) < 12
        text = " ".join(texts(figure))
        assert (f"of {n} classes" in text) == (n > 20)


def test_classes_without_test_images_have_no_row():
    values = {"x": np.array([0.5, np.nan, 0.9]), "y": np.array([0.4, np.nan, 0.8])}
    figure = plots.plot_class_accuracy(values, ("cat", "dog", "bee"), "title")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["cat", "bee"]


def test_confusion_of_a_class_without_images():
    figure = plots.plot_confusion({"x": np.array([[2, 0], [0, 0]])}, "ab", "title")
    assert np.isfinite(figure.axes[0].collections[0].get_array()).all()


def test_mosaic_has_one_scale_and_places_maps():
    maps = torch.stack([torch.full((2, 3, 3), v) for v in (0.1, 0.2)])
    figure = plots.plot_mosaic({"p": maps, "q": maps * 2}, "unit", "title")
    shown = [ax.images[0] for ax in heats(figure)]
    assert [image.get_clim() for image in shown[:2]] == [(-1, 1)] * 2
    picture = shown[0].get_array()
    assert picture.shape == (8, 8) and picture[1, 1] == pytest.approx(0.1)
    assert (
        picture[5, 1] == pytest.approx(0.2)
        and np.ma.getmaskarray(np.ma.masked_invalid(picture))[3].all()
    )


# ---------------------------------------------------------------- what a reader reads


def test_explained_class_is_the_coloured_bar():
    figure = plots.plot_explanations(
        IMAGES[:1],
        MAPS[:1],
        ["t"],
        PROBABILITIES[:1],
        CLASSES,
        targets=[int(PROBABILITIES[0].argsort()[-2])],
    )
    (bars,) = (ax for ax in figure.axes if ax.patches)
    widths, colours = zip(*((p.get_width(), p.get_facecolor()) for p in bars.patches), strict=True)
    assert list(widths) == sorted(widths, reverse=True)
    assert len(set(colours)) == 2 and colours.count(colours[1]) == 1, (
        "only the second bar stands out"
    )
    best = int(PROBABILITIES[0].argmax())
    assert bars.texts[0].get_text() == f"{CLASSES[best]} {PROBABILITIES[0, best]:.0%}"


def test_no_name_lies_across_its_bar():
    figure = plots.plot_explanations(IMAGES[:1], MAPS[:1], ["t"], PROBABILITIES[:1], CLASSES)
    figure.canvas.draw()
    (bars,) = (ax for ax in figure.axes if ax.patches)
    for text, bar in zip(bars.texts, bars.patches, strict=True):
        assert text.get_window_extent().y0 >= bar.get_window_extent().y1 - 1


@pytest.mark.parametrize(("first", "scale"), [(9000.0, "log"), (3.0, "linear")])
def test_a_huge_loss_does_not_flatten_the_others(first, scale):
    long = History([first, *[1.0] * 7], [0.1] * 8, [1.0], [0.5], 8, 1.0)
    assert plots.plot_history({"run": long}, "title").axes[0].get_yscale() == scale


def test_nearly_empty_bins_are_not_drawn():
    table = (np.array([0.1, 0.9]), np.array([1.0, 0.8]), np.array([0.001, 0.999]), 0.1)
    _, line = plots.plot_reliability({"x": table}, "title").axes[0].lines
    assert line.get_xdata().tolist() == [0.9]


def test_a_sheet_has_every_image_in_its_place():
    figure = plots.plot_sheet([IMAGES, IMAGES.flip(0)], TITLES, "title")
    (ax,) = panels(figure)
    picture = ax.images[0].get_array()
    assert picture.shape == (16 * 2 + 1, 16 * 3 + 2, 3)
    for x, image in enumerate(IMAGES):
        np.testing.assert_allclose(picture[:16, 17 * x : 17 * x + 16], plots.to_rgb(image))
    np.testing.assert_allclose(picture[17:, :16], plots.to_rgb(IMAGES[2]))
    assert [label.get_text() for label in ax.get_xticklabels()] == TITLES


@pytest.mark.parametrize("titles", [["a"], TITLES, [*TITLES, "more"]])
def test_contact_sheet_shows_every_image(titles):
    shown = panels(plots.plot_images(IMAGES, titles, columns=2))
    assert len(shown) == 3, "also those without a title"
    for ax, image in zip(shown, IMAGES, strict=True):
        np.testing.assert_allclose(ax.images[0].get_array(), image.permute(1, 2, 0) / 255)
    assert [ax.get_title() for ax in shown] == ([*titles, "", ""][:3])


def test_classes_are_sorted_by_accuracy():
    figure = plots.plot_class_accuracy(
        {"x": np.array([0.9, 0.1, 0.5])}, ("cat", "dog", "bee"), "title"
    )
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["dog", "bee", "cat"]


def test_epochs_are_marked_where_they_end():
    loss, accuracy = plots.plot_history({"one": CURVE}, "title").axes
    batches, checks = loss.lines[0], loss.lines[-1]
    np.testing.assert_allclose(batches.get_xdata(), [0.5, 1, 1.5, 2])
    np.testing.assert_allclose(checks.get_xdata(), [1, 2])
    np.testing.assert_allclose(checks.get_ydata(), CURVE.val_loss)
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), CURVE.accuracy)


def test_log_axes():
    ax = plots.plot_lines({"a": ([1, 10], [1, 10])}, "x", "y", "t", logx=True, logy=True).axes[0]
    assert ax.get_xscale() == ax.get_yscale() == "log"


LONG = "a title that says in one whole sentence what the reader is going to find in this picture"
SAID = "automobile 87 % (is truck)"  # what stands over one small picture


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.plot_images(IMAGES, [SAID] * 3, columns=3, suptitle=LONG),
        lambda: plots.plot_lines({"a": ([0, 1], [0, 1])}, "x", "y", LONG + ", " + LONG),
        lambda: plots.plot_reliability({"x": RELIABILITY}, LONG),
        lambda: plots.plot_map_grid(IMAGES, {"m": MAPS}, [SAID] * 3, suptitle=LONG),
        lambda: plots.plot_effect(SIDE, SIDE, CLASSES, 1, suptitle=LONG + ", " + LONG),
        lambda: plots.plot_class_accuracy({"x": np.array([0.9, 0.1])}, "ab", LONG + ", " + LONG),
    ],
    ids=["images", "lines", "reliability", "map_grid", "effect", "class_accuracy"],
)
def test_long_titles_wrap_inside_the_figure(draw):
    figure = draw()
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    shown = [ax.title for ax in figure.axes] + ([figure._suptitle] if figure._suptitle else [])
    shown = [text for text in shown if text.get_text()]
    assert shown
    for text in shown:
        box = text.get_window_extent(renderer)
        assert box.x0 >= -2 and box.x1 <= figure.bbox.width + 2, text.get_text()
    boxes = [ax.title.get_window_extent(renderer) for ax in figure.axes if ax.get_title()]
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[:i]), "titles run into each other"


def test_wrapped_titles_have_lines_of_about_equal_length():
    lines = style_module.wrapped("red raised the score and blue lowered it, twice", 3.2, 12)
    lengths = [len(line) for line in lines.split("\n")]
    assert len(lengths) == 2 and min(lengths) > 0.7 * max(lengths)
    assert style_module.wrapped("", 3, 12) == ""


# ---------------------------------------------------------------- names as people give them


NAMES = {
    "spaces": "two short words",
    "accents": "dög à la crème",
    "CJK": "柴犬",
    "emoji": "cat 🐈",
    "dollars": "$5 or $10",
    "formula": "$x_2^{y}$",
    "half a formula": "a$_b",
    "underscores": "my_own_class",
    "markup": "<b>bold</b> & <script>",
    "backslash": r"back\slash \frac{1}",
    "80 letters": "Felis silvestris catus of the long-haired kind found in the northern forests now",
    "80 letters without a space": "n02124075_" * 8,
}


def with_name(name: str) -> dict[str, Callable[[], Figure]]:
    """Every kind of figure that shows the name of a class."""
    title = f"{plots.short(name)} 87% (is {plots.short(name)})"
    names = [name, "other", f"{name} too"]
    return {
        "images": lambda: plots.plot_images(IMAGES, [title] * 3, columns=3, suptitle=title),
        "sheet": lambda: plots.plot_sheet([IMAGES], names, title, [name]),
        "counts": lambda: plots.plot_counts({"train": dict.fromkeys(names, 3)}, title),
        "confusion": lambda: plots.plot_confusion({"x": MATRIX}, names, title),
        "class accuracy": lambda: plots.plot_class_accuracy(
            {"x": np.array([0.1, 0.5, 0.9])}, names, title
        ),
        "explanations": lambda: plots.plot_explanations(
            IMAGES, MAPS, [title] * 3, PROBABILITIES, [name] * 10, suptitle=title
        ),
        "map grid": lambda: plots.plot_map_grid(IMAGES, {name: MAPS}, [title] * 3),
        "effect": lambda: plots.plot_effect(SIDE, SIDE, [name] * 10, 1, suptitle=title),
        "lines": lambda: plots.plot_lines(
            {name: ([0, 1], [1, 2]), "b": ([0], [1])}, "x", "y", title
        ),
        "scatter": lambda: plots.plot_scatter(
            [1, 2], [3, 4], [5, 6], "x", "y", "z", title, {name: 0}
        ),
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("figure", with_name(""))
def test_class_names_are_drawn_whatever_they_are(kind, figure):
    """No empty boxes (matplotlib warns of those), no formula, nothing outside the figure."""
    drawn = with_name(NAMES[kind])[figure]()
    drawn.canvas.draw()
    renderer = drawn.canvas.get_renderer()
    titles = [drawn._suptitle, *(ax.title for ax in drawn.axes)]
    for text in titles:
        if text is not None and text.get_text():
            box = text.get_window_extent(renderer)
            assert box.x0 >= -2 and box.x1 <= drawn.bbox.width + 2, text.get_text()


@pytest.mark.parametrize("name", NAMES.values())
def test_short_names_keep_both_ends(name):
    shown = plots.short(name)
    assert len(shown) <= 24 and (shown == name or (name[:10] in shown and name[-4:] in shown))


def test_characters_without_a_font_become_their_codes_and_say_so_once(monkeypatch, capsys):
    monkeypatch.setattr(style_module, "_drawable", lambda character: False)
    monkeypatch.setattr(style_module, "_noted", set())
    assert plots.readable("my 猫犬 é") == "my [U+732B U+72AC] [U+00E9]"
    assert plots.readable("猫") == "[U+732B]"
    assert capsys.readouterr().out.count("Install a font such as Noto Sans CJK") == 1
    assert plots.readable("plain_text <b>") == "plain_text <b>"


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.plot_images(IMAGES[0], TITLES),
        lambda: plots.plot_images(IMAGES.float(), TITLES),
        lambda: plots.plot_images(IMAGES[:0], []),
        lambda: plots.plot_sheet([IMAGES, IMAGES[:2]], TITLES, "title"),
        lambda: plots.plot_sheet([IMAGES, IMAGES[..., :8]], TITLES, "title"),
        lambda: plots.plot_map_grid(IMAGES, {"m": MAPS[:2]}, TITLES),
        lambda: plots.plot_map_grid(IMAGES, {"m": MAPS[:, :8]}, TITLES),
        lambda: plots.plot_map_grid(IMAGES, {"m": MAPS}, TITLES[:2]),
        lambda: plots.plot_map_grid(IMAGES[:0], {"m": MAPS[:0]}, []),
        lambda: plots.plot_explanations(IMAGES, MAPS[:2], TITLES, PROBABILITIES, CLASSES),
        lambda: plots.plot_explanations(IMAGES, MAPS, TITLES, PROBABILITIES[:2], CLASSES),
        lambda: plots.plot_explanations(IMAGES, MAPS, TITLES[:1], PROBABILITIES, CLASSES),
        lambda: plots.overlay(IMAGES[0], MAPS),
        lambda: plots.overlay(IMAGES[0], MAPS[0, :8]),
    ],
    ids=[
        "one image",
        "float images",
        "no images",
        "short row",
        "row of other sizes",
        "few maps",
        "small maps",
        "few titles for rows",
        "no rows",
        "few explanations",
        "few probabilities",
        "few titles for maps",
        "batch of maps",
        "map of another size",
    ],
)
def test_wrong_shapes_are_one_sentence_and_leave_no_figure(draw):
    with pytest.raises(ValueError) as caught:
        draw()
    sentence = str(caught.value)
    assert sentence.endswith(".") and ":" in sentence and "\n" not in sentence
    assert plt.get_fignums() == []
