"""The explorer's panel: every control around one picture. It binds; utils.explorer computes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from html import escape

import ipywidgets as W

from ..data import ImageSet
from ..explain import BASELINES, METHODS, kind, layers
from ..widgets import png, uploads
from .state import Answer, Explorer, Stale, View

OWN = "own images"


class Panel:
    """Every control of the explorer around one picture; `.box` is the widget to display.

    Pictures are computed in one worker thread and drawn in the kernel's own loop, so that a moved
    slider is heard while something slow is being computed: that is given up then, and what was
    asked for before can never overwrite what was asked for last.
    """

    def __init__(self, explorer: Explorer, sets: Mapping[str, ImageSet]) -> None:
        self.explorer, self.sets = explorer, dict(sets)
        self._ticket, self._muted = 0, False
        self._worker = ThreadPoolExecutor(1, "explorer")
        names, classes = list(explorer.models), list(enumerate(explorer.classes))
        every = [("any class", None), *((name, c) for c, name in classes)]
        height, width = explorer.images.shape[-2:]
        vits = [m for m in explorer.models.values() if kind(m) == "vit"]
        deepest = max([len(m.blocks) for m in vits], default=1)
        heads = max([m.blocks[0].attn.num_heads for m in vits], default=1)
        pairs = [(" and ".join(names), tuple(names))] if len(names) > 1 else []

        def slider(kind: type, *limits: float, **more: object) -> W.Widget:
            return kind(*limits, continuous_update=False, **more)

        self.knobs: dict[str, W.Widget] = {
            "images": W.Dropdown(options=[*sets, OWN]),
            "answers": W.Dropdown(options=["all", "right", "wrong", "disagree"]),
            "true_class": W.Dropdown(options=every, index=0),
            "predicted_class": W.Dropdown(options=every, index=0),
            "confidence": slider(W.FloatRangeSlider, value=(0, 1), min=0, max=1, step=0.05),
            "image": slider(W.IntSlider, 0, 0, len(explorer.images) - 1),
            "models": W.Dropdown(options=[*((n, (n,)) for n in names), *pairs]),
            "method": W.Dropdown(options=[("-", "-")]),
            "layer": slider(W.SelectionSlider, options=["-"]),
            "start_layer": slider(W.IntSlider, 0, 0, deepest - 1),
            "block": slider(W.IntSlider, deepest, 1, deepest),
            "head": slider(W.IntSlider, 0, 0, heads),
            "steps": W.Dropdown(
                options=[
                    ("until complete", None),
                    *((str(n), n) for n in (8, 16, 32, 64, 128, 256)),
                ],
                index=0,
            ),
            "baseline": W.Dropdown(options=list(BASELINES)),
            "target": W.Dropdown(
                options=[("predicted", None), *((name, c) for c, name in classes)], index=0
            ),
            "overlay": slider(W.FloatSlider, 0.75, min=0, max=1, step=0.05),
            "colour_scale": W.Dropdown(options=["per map", "shared"]),
            "region": W.Dropdown(options=[("keep", "none"), ("blur", "blur"), ("erase", "erase")]),
            "rows": slider(
                W.IntRangeSlider, value=(height // 4, height * 3 // 4), min=0, max=height
            ),
            "columns": slider(
                W.IntRangeSlider, value=(width // 4, width * 3 // 4), min=0, max=width
            ),
        }
        for name, knob in self.knobs.items():
            knob.description = name.replace("_", " ")
            knob.style.description_width = "90px"
            knob.layout.width = "290px"
            knob.add_class(f"explorer-{name}")
            knob.observe(self._changed, names="value")
        self.knobs["head"].description = "head (0: mean)"
        self.knobs["predicted_class"].description = "predicted"
        self.upload = W.FileUpload(accept="image/*", multiple=True, description="upload images")
        self.path = W.Text(
            description="or a path", continuous_update=False, placeholder="photos/cat.jpg"
        )
        self.upload.observe(lambda change: self._own(uploads(change["new"])), names="value")
        self.path.observe(lambda change: self._own([change["new"].strip()]), names="value")
        self.picture = W.Image(format="png", layout=W.Layout(width="100%", max_width="720px"))
        self.status, self.numbers = W.Label(""), W.HTML("")
        for name, widget in (
            ("picture", self.picture),
            ("status", self.status),
            ("upload", self.upload),
        ):
            widget.add_class(f"explorer-{name}")
        groups = {
            "which image": (
                "images",
                "answers",
                "true_class",
                "predicted_class",
                "confidence",
                "image",
            ),
            "which explanation": (
                "models",
                "method",
                "layer",
                "start_layer",
                "block",
                "head",
                "steps",
                "baseline",
                "target",
            ),
            "how it is drawn": ("overlay", "colour_scale", "region", "rows", "columns"),
        }
        columns = [
            W.VBox([W.HTML(f"<b>{title}</b>"), *(self.knobs[name] for name in group)])
            for title, group in groups.items()
        ]
        columns[0].children += (W.HBox([self.upload]), self.path)
        controls = W.VBox(columns, layout=W.Layout(flex="0 0 300px"))
        shown = W.VBox(
            [self.status, self.picture, self.numbers],
            layout=W.Layout(flex="1 1 380px", min_width="0"),
        )
        self.box = W.HBox([controls, shown], layout=W.Layout(flex_flow="row wrap"))
        self._fit()
        self._ask(now=True)

    # ------------------------------------------------------------ from controls to a view

    def view(self) -> View:
        """What the controls ask for. Raises ValueError if no image passes the filter."""
        if self.knobs["images"].value == OWN and self.explorer.labels is not None:
            raise ValueError("Choose pictures of your own: upload them, or type a path.")
        if not self.list:
            raise ValueError("No image passes this filter: widen it.")
        k = {name: knob.value for name, knob in self.knobs.items()}
        options = {n: k[n] for n in self._options(k["method"])}
        if "block" in options:  # people count blocks and heads from 1; head 0 is the mean
            options |= {
                "block": options["block"] - 1,
                "head": options["head"] - 1 if options["head"] else None,
            }
        (top, bottom), (left, right) = k["rows"], k["columns"]
        return View(
            self.list[k["image"]],
            k["models"],
            k["method"],
            tuple(sorted(options.items())),
            k["target"],
            k["overlay"],
            k["colour_scale"] == "shared",
            k["region"],
            (top, left, bottom, right),
        )

    def _options(self, method: str) -> list[str]:
        """The method's options that these models have in common and a control stands for."""
        chosen = [self.explorer.models[name] for name in self.knobs["models"].value]
        usable = {"layer": len(chosen) == 1, "start_layer": all(kind(m) == "vit" for m in chosen)}
        return [n for n in METHODS[method].options if n in self.knobs and usable.get(n, True)]

    def _fit(self) -> None:
        """Offer only what fits the rest: methods, layers and images; hide controls without effect."""
        self._muted = True
        k, explorer = self.knobs, self.explorer
        _offer(k["method"], [(METHODS[m].title, m) for m in explorer.methods(k["models"].value)])
        options = self._options(k["method"].value)
        if "layer" in options:
            names = layers(explorer.models[k["models"].value[0]])
            if list(k["layer"].options) != names:
                k["layer"].options, k["layer"].value = names, names[-1]
        self.list = explorer.kept(
            k["models"].value,
            k["answers"].value,
            k["true_class"].value,
            k["predicted_class"].value,
            k["confidence"].value,
        )
        k["image"].value = min(k["image"].value, max(0, len(self.list) - 1))
        k["image"].max = max(0, len(self.list) - 1)
        own, region = k["images"].value == OWN, k["region"].value != "none"
        for name, size in zip(("rows", "columns"), explorer.images.shape[-2:], strict=True):
            _reach(k[name], size)
        hidden = {
            n: n not in options
            for n in ("layer", "start_layer", "block", "head", "steps", "baseline")
        }
        hidden |= dict.fromkeys(("answers", "true_class"), own) | dict.fromkeys(
            ("rows", "columns"), not region
        )
        for name, knob in (*k.items(), ("upload", self.upload), ("path", self.path)):
            off = hidden.get(name, name in ("upload", "path") and not own)
            knob.layout.display = "none" if off else ""
        self._muted = False

    def _changed(self, change: dict) -> None:
        if self._muted:
            return
        if change["owner"] is self.knobs["images"] and change["new"] != OWN:
            self.explorer.show(self.sets[change["new"]])
        self._fit()
        self._ask()

    def _own(self, sources: Sequence[object]) -> None:
        """Look at one's own files; if one cannot be read, say so and keep what was shown."""
        if not sources or sources == [""]:
            return
        try:
            self.explorer.show_own(sources)
        except ValueError as error:
            self.status.value = str(error)
            return
        self._fit()
        self._ask()

    # ------------------------------------------------------------ from a view to the picture

    def _ask(self, now: bool = False) -> None:
        """Show what the controls ask for: at once, or as soon as the worker has it."""
        self._ticket += 1
        mine = self._ticket
        try:
            view = self.view()
        except ValueError as error:
            self.status.value = str(error)
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # plain Python: nobody could move a slider meanwhile
            now = True
        if now:
            self._draw(view, self.explorer.answers(view))
            return
        self._task = loop.create_task(self._later(view, mine))

    async def _later(self, view: View, mine: int) -> None:
        loop = asyncio.get_running_loop()
        name = METHODS[view.method].title

        def told(passes: int) -> None:
            if passes > 2 and mine == self._ticket:
                loop.call_soon_threadsafe(
                    setattr, self.status, "value", f"{name}: {passes} forward passes …"
                )

        try:
            compute = partial(self.explorer.answers, view, lambda: mine == self._ticket, told)
            answers = await loop.run_in_executor(self._worker, compute)
        except Stale:
            return
        except (ValueError, RuntimeError) as error:
            self.status.value = str(error)
            return
        if mine == self._ticket:
            self._draw(view, answers)

    def _draw(self, view: View, answers: Mapping[str, Sequence[Answer]]) -> None:
        try:
            self.picture.value = png(self.explorer.picture(view, answers))
        except ValueError as error:
            self.status.value = str(error)
            return
        measured = self.explorer.numbers(view)
        rows = [
            f"<tr><td>{escape(model)}</td><td>{escape(metric)}</td><td>{value:.3f}</td></tr>"
            for model, values in measured.items()
            for metric, value in values.items()
        ]
        self.numbers.value = (
            f"<b>Notebook 10 measured for this method</b><table>{''.join(rows)}</table>"
            if rows
            else ""
        )
        place = self.knobs["image"].value + 1
        self.status.value = f"{self.explorer.headline(view)} ({place} of {len(self.list)})"


def _offer(knob: W.Dropdown, options: list[tuple[str, object]]) -> None:
    """Replace a list's options and keep its value where it is still offered."""
    if list(knob.options) != options:
        value = knob.value
        knob.options = options
        knob.value = value if value in [v for _, v in options] else options[0][1]


def _reach(knob: W.IntRangeSlider, size: int) -> None:
    """Let a range slider reach `size` pixels, starting with the middle half."""
    if knob.max != size:
        knob.value = (0, 0)
        knob.max = size
        knob.value = (size // 4, size * 3 // 4)
