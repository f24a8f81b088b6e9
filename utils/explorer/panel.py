"""The explorer's panel: every control around one picture. It binds; state.py computes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from html import escape
from itertools import count
from pathlib import Path
from typing import Any

import ipywidgets as W

from ..data import ImageSet
from ..explain import METHODS, kind, layers
from ..widgets import png, uploads
from .controls import GROUPS, OWN, TABLE, Situation, build_knobs, limit, offer, reach, show_only
from .own import checked, state_of, typed_path
from .state import RUNNER_UP, Answer, Exhibit, Explorer, Stale, View, always
from .style import CSS

FIRST = "gradcam"  # the method that shows photographs first
UNKNOWN = "-"  # for a setting that cannot be chosen
LOOK_ALIKE = ("attention",)  # names that begin so: the same map for every class


class Panel:
    """Every control of the explorer around one picture; `.box` is the widget to display.

    sets: what "images" offers, {title: image set for the explorer's models, or an Exhibit with
    models of its own}. Everything that runs a model runs in one worker thread and is drawn in the
    kernel's own loop, so that a moved slider is noticed while something slow is computed: that is
    stopped then, and an older question can never overwrite a newer one.
    """

    def __init__(self, explorer: Explorer, sets: Mapping[str, ImageSet | Exhibit]) -> None:
        self.explorer, self.sets = explorer, dict(sets)
        self._models = dict(explorer.models)  # of sets that bring none
        self._ticket, self._muted = 0, False
        self._worker = ThreadPoolExecutor(1, "explorer")
        self._own_sources: tuple[Any, ...] = ()  # asked for
        self._own_shown: tuple[Any, ...] = ()  # the last that could be read
        self._serials = count()
        self._shown: object = None  # what the explorer looks at, as _wanted() names it
        self.list: list[int] = []
        self._loads = 0  # under way in the worker
        self._task: asyncio.Task | None = None
        self._first_set = next(iter(self.sets.values()), None)
        self._build()
        self._ask(now=True)

    def _build(self) -> None:
        self.knobs = build_knobs()
        self.knobs["images"].options = [*self.sets, OWN]
        self.knobs["images"].value = next(iter(self.sets), OWN)
        for knob in self.knobs.values():
            knob.observe(self._changed, names="value")
        self.upload = W.FileUpload(accept="image/*", multiple=True, description="upload images")
        self.path = W.Text(
            description="or a path", continuous_update=False, placeholder="photos/cat.jpg"
        )
        self.path.style.description_width = "92px"
        self.upload.observe(lambda change: self._uploaded(change["new"]), names="value")
        self.path.observe(lambda _: self._typed(), names="value")
        self.path.on_msg(self._entered)
        self.picture = W.Image(format="png", layout=W.Layout(width="100%", max_width="760px"))
        self.status, self.numbers = W.Label(""), W.HTML("")
        for name in ("picture", "status", "upload", "path", "numbers"):
            getattr(self, name).add_class(f"explorer-{name}")
        columns = []
        for group in GROUPS:
            rows = [self.knobs[control.name] for control in TABLE if control.group == group]
            columns.append(W.VBox([W.HTML(f"<b>{group}</b>"), *rows]))
        columns[0].children += (self.upload, self.path)
        controls, shown = W.VBox(columns), W.VBox([self.status, self.picture, self.numbers])
        controls.add_class("explorer-controls")
        shown.add_class("explorer-shown")
        self.box = W.HBox([W.HTML(f"<style>{CSS}</style>"), controls, shown])
        self.box.add_class("explorer")

    # ------------------------------------------------------------ from controls to a view

    @property
    def own(self) -> bool:
        """Whether one's own images are chosen."""
        return self.knobs["images"].value == OWN

    def view(self) -> View:
        """What the controls ask for. Raises ValueError if no image passes the filter."""
        if self.own and self.explorer.labels is not None:
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
        options = {n: value for n, value in options.items() if value not in (None, UNKNOWN)}
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
            k["against"] if self._compares(k["method"]) else None,
        )

    def _options(self, method: str) -> list[str]:
        """The method's options that these models have in common and a control stands for."""
        models = [self.explorer.models[title] for title in self.knobs["models"].value]
        usable = {"layer": len(models) == 1, "start_layer": all(kind(m) == "vit" for m in models)}
        return [n for n in METHODS[method].options if n in self.knobs and usable.get(n, True)]

    @staticmethod
    def _compares(method: str) -> bool:
        return not method.startswith(LOOK_ALIKE)

    def _fit(self) -> None:
        """Offer only what fits the rest: models, methods, layers and images; hide the others."""
        self._muted = True
        try:
            k, explorer = self.knobs, self.explorer
            titles = list(explorer.models)
            both = [(" and ".join(titles), tuple(titles))] if len(titles) > 1 else []
            offer(k["models"], [*((t, (t,)) for t in titles), *both])
            classes = [(name, c) for c, name in enumerate(explorer.classes)]
            for name in ("true_class", "predicted_class"):
                offer(k[name], [("any class", None), *classes])
            offer(k["target"], [("predicted", None), *classes])
            offer(k["against"], [("nothing", None), ("the runner-up", RUNNER_UP), *classes])
            methods = explorer.methods(k["models"].value)
            first = k["method"].value == UNKNOWN
            offer(k["method"], [(METHODS[m].title, m) for m in methods])
            if first and FIRST in methods and isinstance(self._first_set, Exhibit):
                k["method"].value = FIRST
            self._fit_options()
            self.list = explorer.kept(
                k["models"].value,
                k["answers"].value,
                k["true_class"].value,
                k["predicted_class"].value,
                k["confidence"].value,
            )
            limit(k["image"], len(self.list) - 1)
            for name, size in zip(("rows", "columns"), explorer.images.shape[-2:], strict=True):
                reach(k[name], size)
            method = k["method"].value
            now = Situation(
                frozenset(self._options(method)),
                self.own,
                k["region"].value != "none",
                len(titles) > 1,
                self._compares(method),
            )
            show_only(k, now)
            for widget in (self.upload, self.path):
                widget.layout.display = "" if self.own else "none"
        finally:
            self._muted = False

    def _fit_options(self) -> None:
        """Layers, blocks and heads of the chosen models, where the method asks for them."""
        k = self.knobs
        models = [self.explorer.models[title] for title in k["models"].value]
        options = self._options(k["method"].value)
        if "layer" in options:
            try:
                names = layers(models[0])
            except ValueError:  # not known for this model: the method itself says what to do
                names = []
            offer(k["layer"], names or [UNKNOWN], last=True)
        if {"block", "start_layer"} & set(options):
            depth = min(len(m.blocks) for m in models)
            limit(k["start_layer"], depth - 1)
            limit(k["block"], depth, 1, jump=True)
        if "head" in options:
            limit(k["head"], min(m.blocks[0].attn.num_heads for m in models))

    # ------------------------------------------------------------ what happens to the controls

    def _changed(self, _: dict) -> None:
        if not self._muted:
            self._ask()

    def _uploaded(self, value: object) -> None:
        files = tuple(uploads(value))
        for file in files:
            vars(file)["serial"] = next(self._serials)  # what state_of tells uploads apart by
        if files:
            self._own_sources = files
            self._ask()

    def _entered(self, _: object, message: dict, __: object) -> None:
        if message.get("event") == "submit":
            self._typed()

    def _typed(self) -> None:
        """A path was typed, or Enter pressed on the old one, whose file may have changed."""
        if self.path.value.strip():
            self._own_sources = (typed_path(self.path.value),)
            self._ask()

    def _wanted(self) -> object:
        """What the controls ask to look at; equal as long as nothing has to be loaded."""
        if not self.own:
            return self.knobs["images"].value
        return state_of(self._own_sources) if self._own_sources else self._shown

    def _load(
        self, wanted: object, sources: Sequence[Any], go_on: Callable[[], bool] = always
    ) -> None:
        """Let the explorer look at what was asked for, unless it does so already."""
        if wanted == self._shown:
            return
        if isinstance(wanted, str):
            exhibit = self.sets[wanted]
            if not isinstance(exhibit, Exhibit):
                exhibit = Exhibit(self._models, exhibit)
            if self.explorer.images is not exhibit.images.images:
                self.explorer.show(exhibit.images, exhibit.models, go_on)
        else:
            try:
                self._load_own(sources, go_on)
            except ValueError:
                if go_on():
                    self._own_sources = self._own_shown
                raise
            self._own_shown = tuple(sources)
        self._shown = wanted

    def _load_own(self, sources: Sequence[Any], go_on: Callable[[], bool]) -> None:
        for source in sources:
            if isinstance(source, Path):
                checked(source)
            else:
                source.seek(0)
        self.explorer.show_own(sources, go_on)

    # ------------------------------------------------------------ from a view to the picture

    def _ask(self, now: bool = False) -> None:
        """Show what the controls ask for: at once, or as soon as the worker has it."""
        self._ticket += 1
        ticket, wanted = self._ticket, self._wanted()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # plain Python: nobody could move a slider meanwhile
            now = True
        try:
            if now:
                self._load(wanted, self._own_sources)
            if wanted == self._shown and not self._loads:  # controls follow without waiting
                self._fit()
                view = self.view()
                if now:
                    self._draw(view, self.explorer.answers(view))
        except Exception as error:  # of any type: a callback's traceback is shown nowhere
            self._fail(error)
            return
        if not now:
            self._task = loop.create_task(self._later(ticket, wanted, self._own_sources))

    async def _later(self, ticket: int, wanted: object, sources: tuple[Any, ...]) -> None:
        """Load, compute and draw for one state of the controls; every failure becomes the status."""
        in_worker = partial(asyncio.get_running_loop().run_in_executor, self._worker)

        def newest() -> bool:
            return ticket == self._ticket

        try:
            self._loads += 1
            try:
                await in_worker(self._load, wanted, sources, newest)
            finally:
                self._loads -= 1
            if not newest():
                return
            self._fit()
            view = self.view()
            progress = self._progress(ticket, METHODS[view.method].title)
            answers = await in_worker(self.explorer.answers, view, newest, progress)
            if newest():
                self._draw(view, answers)
        except Stale:
            return
        except Exception as error:  # of any type: nothing else would ever be shown of it
            if newest():
                self._fail(error)

    def _progress(self, ticket: int, title: str) -> Callable[[int], None]:
        """What the worker calls with the number of forward passes made."""
        loop = asyncio.get_running_loop()

        def show(passes: int) -> None:
            if ticket == self._ticket:
                self.status.value = f"{title}: {passes} forward passes …"

        def tell(passes: int) -> None:
            if passes > 2:
                loop.call_soon_threadsafe(show, passes)

        return tell

    def _fail(self, error: Exception) -> None:
        """One sentence in place of a traceback; the picture stays, paler, as the last one."""
        message = " ".join(str(error).split())
        if not isinstance(error, (ValueError, RuntimeError)) or not message:
            message = f"{type(error).__name__}: {message}" if message else type(error).__name__
            method = METHODS.get(self.knobs["method"].value)
            title = method.title if method else "This"
            message = f"{title} failed here ({message}): choose another method or model."
        self.status.value = message
        self.picture.add_class("explorer-old")

    def _draw(self, view: View, answers: Mapping[str, Sequence[Answer]]) -> None:
        """The words go first, so that a page never shows a new picture with old words."""
        picture = png(self.explorer.picture(view, answers))
        rows = [
            f"<tr><td>{escape(title)}</td><td>{escape(metric)}</td><td>{value:.3f}</td></tr>"
            for title, values in self.explorer.numbers(view).items()
            for metric, value in values.items()
        ]
        heading = "<b>Notebook 11 measured for this method</b>"
        place = self.knobs["image"].value + 1
        self.status.value = f"{self.explorer.headline(view)} ({place} of {len(self.list)})"
        self.numbers.value = f"{heading}<table>{''.join(rows)}</table>" if rows else ""
        self.picture.remove_class("explorer-old")
        self.picture.value = picture
