"""An executed notebook as one HTML page that asks nothing of the network."""

from __future__ import annotations

import base64
import io
import mimetypes
import os
from html import escape
from pathlib import Path

import nbformat
from jinja2 import FileSystemLoader
from nbconvert.exporters import TemplateExporter
from nbconvert.filters import strip_ansi
from PIL import Image
from traitlets.config import Config

from .. import env
from .markup import Heading, Markup
from .notebooks import NOTE, PROGRESS, WIDGET

HERE = Path(__file__).parent
SCALE = 96 / 150  # CSS pixels for a pixel of a saved figure (150 dpi): text in all has one size
WIDEST = 1600  # pixels of a figure on the page
QUALITY = 55  # of WebP, 0..100: text stays sharp, and the page stays under 6 MB
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")


def build_html(notebook: Path, out: Path, folder: Path = env.ROOT / "notebooks") -> Path:
    """Write `notebook` (executed) as the page `out`: self-contained, without code, formulas as MathML.

    Cells tagged "notebook" stay out of it: exercises, checks, what a reader of the page cannot use.
    Pictures come from the outputs, from files beside `out` (report.show_figure), or relative to
    `folder`. Figures and tables are numbered; one without a caption gets the heading above it.
    Raises FileNotFoundError for a picture that is not there.
    """
    writer = Writer(out.parent, folder)
    exporter = TemplateExporter(
        extra_loaders=[FileSystemLoader(HERE)],
        template_file="page.html.j2",
        template_name="base",
        config=Config(
            {"TagRemovePreprocessor": {"enabled": True, "remove_cell_tags": {"notebook"}}}
        ),
    )
    for name in ("prose", "stream", "shown"):
        exporter.register_filter(name, getattr(writer, name))
    style = (HERE / "page.css").read_text("utf-8")
    exporter.environment.globals.update(writer=writer, style=style)
    page, _ = exporter.from_notebook_node(nbformat.read(notebook, 4))
    return env.write(out, page.strip() + "\n")


class Writer:
    """Cells to HTML, with numbered figures and tables."""

    def __init__(self, figures: Path, folder: Path) -> None:
        self.figures, self.folder = figures, folder
        self.markup = Markup(self._link, self._image)
        self.count = {"Figure": 0, "Table": 0}

    @property
    def title(self) -> str:
        return self.markup.title

    @property
    def sections(self) -> list[Heading]:
        return self.markup.sections

    def prose(self, markdown: str) -> str:
        """A Markdown cell."""
        return self.markup.prose(markdown)

    def stream(self, output: nbformat.NotebookNode) -> str:
        """Printed text, without progress bars."""
        lines = [x for x in strip_ansi(output.text).splitlines() if not PROGRESS.search(x)]
        text = "\n".join(lines)
        return f'<pre class="{escape(output.name)}">{escape(text)}</pre>' if text.strip() else ""

    def shown(self, output: nbformat.NotebookNode) -> str:
        """Anything that a cell displays."""
        data, notes = output.data, output.metadata
        if WIDGET in data:
            return f'<p class="note">{NOTE}</p>'
        if "figure" in notes:
            return self.saved(notes["figure"])
        if "caption_of" in notes:
            return ""  # a caption that stands with its figure or table here
        for kind in PICTURES:
            if kind in data:
                raw = data[kind].encode() if kind.endswith("xml") else base64.b64decode(data[kind])
                return self.picture(raw, kind, notes.get("caption", ""))
        if "text/html" in data:
            return self.table(data["text/html"], notes.get("table", ""))
        for kind in ("text/markdown", "text/latex"):
            if kind in data:
                return self.prose(data[kind])
        return f"<pre>{escape(strip_ansi(data.get('text/plain', '')))}</pre>"

    def table(self, html: str, words: str) -> str:
        """HTML of a cell; a table in it is numbered."""
        html = self.markup.clean(html)
        if "<table" not in html or "<caption" in html:
            return f'<div class="table" tabindex="0">{html}</div>' if "<table" in html else html
        caption = self._caption("Table", escape(words))
        return (
            f'<figure class="table" tabindex="0"><figcaption>{caption}</figcaption>{html}</figure>'
        )

    def saved(self, name: str) -> str:
        """A figure that report.save_figure wrote, in its true size, with a link to its notebook."""
        file = self._there(self.figures / name)
        made = sorted(self.folder.glob(f"{name[:2]}_*.ipynb"))[:1]
        links = [f' <a href="{escape(self._link(m.name))}">{m.stem}</a>' for m in made]
        return self.picture(file.read_bytes(), "image/png", "", "".join(links), True)

    def picture(
        self, raw: bytes, kind: str, words: str, link: str = "", saved: bool = False
    ) -> str:
        """A figure with its caption: the file's own if it has one, else `words`."""
        width = ""
        if kind == "image/png":
            with Image.open(io.BytesIO(raw)) as picture:
                words = getattr(picture, "text", {}).get("Description", "") or words
                width = f' width="{round(picture.width * SCALE)}"' if saved else ""
                raw, kind = _smaller(picture, raw)
        data = base64.b64encode(raw).decode()
        image = f'<img src="data:{kind};base64,{data}"{width} alt="{escape(words or self.markup.words)}">'
        caption = self._caption("Figure", escape(words))
        return f"<figure>{image}<figcaption>{caption}{link}</figcaption></figure>"

    def _caption(self, kind: str, html: str) -> str:
        self.count[kind] += 1
        return f"<b>{kind} {self.count[kind]}.</b> {html or self.markup.heading}"

    def _link(self, address: str) -> str:
        """A link relative to the notebook, seen from the page."""
        return os.path.relpath(self.folder / address, self.figures).replace(os.sep, "/")

    def _image(self, address: str, words: str) -> str:
        """A Markdown image: embedded if it is a file, its description if it is elsewhere."""
        if address.startswith("data:"):
            return f'<img src="{escape(address)}" alt="{escape(words)}">'
        if ":" in address:
            return escape(words)
        file = self._there(self.folder / address)
        kind = mimetypes.guess_type(file.name)[0] or "image/png"
        return self.picture(file.read_bytes(), kind, words)

    def _there(self, file: Path) -> Path:
        if not file.exists():
            raise FileNotFoundError(
                f"The report shows {file.name}, but that figure is not there: "
                "run `make report` again."
            )
        return file


def _smaller(picture: Image.Image, raw: bytes) -> tuple[bytes, str]:
    """A PNG as WebP where that is smaller: half the size, and every browser reads it."""
    shrunk = picture.convert("RGB")
    if shrunk.width > WIDEST:
        height = round(shrunk.height * WIDEST / shrunk.width)
        shrunk = shrunk.resize((WIDEST, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shrunk.save(buffer, "WEBP", quality=QUALITY, method=6)
    webp = buffer.getvalue()
    return (webp, "image/webp") if len(webp) < len(raw) else (raw, "image/png")
