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

from ..data import ImageSet
from ..explain import METHODS
from ..widgets import png, uploads
from .board import Board
from .fitting import NO_CHOICE, fit_knobs, options_of
from .own import existing_file, state_of, typed_path
from .state import Explorer
from .views import Answer, Exhibit, View
from .watch import Stale, always


class Panel(Board):
    """Every control of the explorer around one picture; `.box` is the widget to display.

    sets: what "images" offers, {title: image set for the explorer's models, or an Exhibit with
    models of its own}. Everything that runs a model runs in one worker thread and is drawn in the
    kernel's own loop, so that a moved slider is noticed while something slow is computed: that is
    stopped then, and an older question can never overwrite a newer one.
    """

    def __init__(self, explorer: Explorer, sets: Mapping[str, ImageSet | Exhibit]) -> None:
        super().__init__(list(sets))
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
        self._photographs_first = isinstance(next(iter(self.sets.values()), None), Exhibit)
        for knob in self.knobs.values():
            knob.observe(self._changed, names="value")
        self.upload.observe(lambda change: self._uploaded(change["new"]), names="value")
        self.path.observe(lambda _: self._typed(), names="value")
        self.path.on_msg(self._entered)
        self._ask(now=True)

    # ------------------------------------------------------------ from controls to a view

    def view(self) -> View:
        """What the controls ask for. Raises ValueError if no image passes the filter."""
        if self.own and self.explorer.labels is not None:
            raise ValueError("Choose pictures of your own: upload them, or type a path.")
        if not self.list:
            raise ValueError("No image passes this filter: widen it.")
        k = {name: knob.value for name, knob in self.knobs.items()}
        options = {n: k[n] for n in options_of(self.explorer, self.knobs)}
        if "block" in options:  # people count blocks and heads from 1; head 0 is the mean
            options |= {
                "block": options["block"] - 1,
                "head": options["head"] - 1 if options["head"] else None,
            }
        options = {n: value for n, value in options.items() if value not in (None, NO_CHOICE)}
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
            k["against"] if METHODS[k["method"]].uses_target else None,
        )

    def _fit(self) -> None:
        """Let the controls offer what fits the models, the images and each other."""
        self._muted = True
        try:
            self.list = fit_knobs(self.explorer, self.knobs, self.own, self._photographs_first)
            for widget in (self.upload, self.path):
                widget.layout.display = "" if self.own else "none"
        finally:
            self._muted = False

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
                existing_file(source)
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
