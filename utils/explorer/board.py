"""The panel's widgets: controls in groups, one's own images, and what is shown; nothing is bound."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as W

from .controls import GROUPS, OWN, TABLE, build_knobs
from .style import CSS


class Board:
    """Every widget of the panel, laid out in `.box`. titles: what "images" offers beside one's own."""

    def __init__(self, titles: Sequence[str]) -> None:
        self.knobs = build_knobs()
        self.knobs["images"].options = [*titles, OWN]
        self.knobs["images"].value = next(iter(titles), OWN)
        self.upload = W.FileUpload(accept="image/*", multiple=True, description="upload images")
        self.path = W.Text(
            description="or a path", continuous_update=False, placeholder="photos/cat.jpg"
        )
        self.path.style.description_width = "92px"
        self.picture = W.Image(format="png", layout=W.Layout(width="100%", max_width="760px"))
        self.status, self.numbers = W.Label(""), W.HTML("")
        for name in ("picture", "status", "upload", "path", "numbers"):
            getattr(self, name).add_class(f"explorer-{name}")
        self.box = W.HBox([W.HTML(f"<style>{CSS}</style>"), self._controls(), self._shown_side()])
        self.box.add_class("explorer")

    def _controls(self) -> W.VBox:
        columns = []
        for group in GROUPS:
            rows = [self.knobs[control.name] for control in TABLE if control.group == group]
            columns.append(W.VBox([W.HTML(f"<b>{group}</b>"), *rows]))
        columns[0].children += (self.upload, self.path)
        controls = W.VBox(columns)
        controls.add_class("explorer-controls")
        return controls

    def _shown_side(self) -> W.VBox:
        shown = W.VBox([self.status, self.picture, self.numbers])
        shown.add_class("explorer-shown")
        return shown

    @property
    def own(self) -> bool:
        """Whether one's own images are chosen."""
        return self.knobs["images"].value == OWN
