"""Controls bound to pictures. Nothing is computed here: `draw` does, and static cells call it too."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as W
from matplotlib import pyplot as plt
from matplotlib.figure import Figure


def png(figure: Figure, dpi: int = 80) -> bytes:
    """The figure as PNG bytes; it is closed, so that a thousand slider steps cost no memory."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()


def control(name: str, values: range | Sequence) -> W.Widget:
    """A slider for a range of numbers, a drop-down for anything else.

    Raises ValueError if there is no value to choose.
    """
    title = name.replace("_", " ")
    if not len(values):
        raise ValueError(
            f"{title} has no values to choose from: give a range or a list of at least one."
        )
    if isinstance(values, range):
        return W.IntSlider(
            values.start,
            values.start,
            values[-1],
            values.step,
            description=title,
            continuous_update=False,
            style={"description_width": "initial"},
        )
    return W.Dropdown(
        options=list(values), description=title, style={"description_width": "initial"}
    )


def browse(draw: Callable[..., Figure], **controls: range | Sequence) -> W.VBox:
    """A panel that calls draw(**values) and shows the Figure it returns.

    controls: name -> range (slider) or sequence (drop-down). The label under the picture says what
    is shown, or the error if `draw` refused the values; the last picture stays then. Raises
    ValueError for a control without values.
    """
    knobs = {name: control(name, values) for name, values in controls.items()}
    picture = W.Image(format="png")
    status = W.Label("")

    def update(_: object = None) -> None:
        values = {name: knob.value for name, knob in knobs.items()}
        open_before = set(plt.get_fignums())
        try:
            picture.value = png(draw(**values))
            status.value = "showing " + ", ".join(
                f"{k.replace('_', ' ')} {v}" for k, v in values.items()
            )
        except (
            Exception
        ) as error:  # any kind: a traceback from a control's callback is shown nowhere
            status.value = str(error) or type(error).__name__
            for number in set(plt.get_fignums()) - open_before:  # what draw had begun
                plt.close(number)

    for knob in knobs.values():
        knob.observe(update, names="value")
    update()
    return W.VBox(
        [W.HBox(list(knobs.values()), layout=W.Layout(flex_flow="row wrap")), picture, status]
    )


def uploads(value: Any) -> list[io.BytesIO]:
    """The files of a FileUpload, named, as ipywidgets 8 (a tuple) or 7 (a dict, Colab) gives them."""
    named = [(f["name"], f) for f in value] if not isinstance(value, dict) else list(value.items())
    files = []
    for name, upload in named:
        file = io.BytesIO(bytes(upload["content"]))
        file.name = name
        files.append(file)
    return files
