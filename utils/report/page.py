"""An executed notebook as one HTML page that asks nothing of the network."""

from __future__ import annotations

import base64
import io
import mimetypes
import os
import re
from html import escape, unescape
from pathlib import Path
from string import Template

import bleach
import nbformat
from bleach.css_sanitizer import CSSSanitizer
from latex2mathml.converter import convert
from nbconvert.filters import markdown2html, strip_ansi
from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from ..env import ROOT
from .notebooks import NOTE, PROGRESS, WIDGET

SCALE = (
    96 / 150
)  # CSS pixels for a pixel of a saved figure (150 dpi), so that text in all has one size
QUALITY = 55  # of WebP, 0..100: text stays sharp, and the page stays under 6 MB
TAGS = set(
    "a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure "
    "h1 h2 h3 h4 h5 h6 hr i img kbd li ol p pre s small span strong sub summary sup table tbody td tfoot "
    "th thead tr u ul".split()
)
ATTRIBUTES = {
    "*": ["class", "id", "title", "style"],
    "a": ["href"],
    "img": ["src", "alt", "width"],
    "td": ["colspan", "rowspan"],
    "th": ["colspan", "rowspan", "scope"],
    "ol": ["start"],
}
# code first, so that a dollar in it stays a dollar
MATH = re.compile(
    r"(?P<code>^~~~.*?^~~~|(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`))"
    r"|\$\$(?P<block>.+?)\$\$"
    r"|(?<![\\$\w])\$(?P<line>(?=[^\s$])(?:(?!\n\n)(?:\\.|[^$\\`]))*?(?<!\s))\$(?![\d$])"
    r"|(?P<dollar>\\?\$)",
    re.DOTALL | re.MULTILINE,
)
PIECES = re.compile(
    r"<h(?P<level>[1-4])(?:\s+id=\"(?P<id>[^\"]*)\")?[^>]*>(?P<title>.*?)</h[1-4]>"
    r"|(?:<p>(?:Table:|<em>Table \d+\.)(?P<before>[^\n]*?)(?:</em>)?</p>\s*)?(?P<div><div>\s*)?<table(?P<table>[^>]*)>(?:\s*<caption[^>]*>(?P<caption>.*?)</caption>)?"
    r"|</table>"
    r"|(?P<alt> alt=\"[^\"]*\">)<figcaption>(?P<figure>.*?)</figcaption>"
    r"</figure>(?:\s*<p><em>Figure \d+\.(?P<below>[^\n]*?)</em></p>)?",
    re.DOTALL,
)


def build_html(notebook: Path, out: Path, folder: Path = ROOT / "notebooks") -> Path:
    """Write `notebook` (executed) as the page `out`: self-contained, code folded, mathematics as MathML.

    Pictures come from the outputs, from files beside `out` (report.show_figure), or relative to
    `folder`. Figures and tables are numbered; one without a caption gets the heading above it. A
    paragraph "*Figure 1. words*" below a figure, or "*Table 1. words*" or "Table: words" above a
    table, is its caption.
    Raises FileNotFoundError for a picture that is not there.
    """
    writer = _Writer(out.parent, folder)
    body = "\n".join(writer.cell(cell) for cell in _joined(nbformat.read(notebook, 4).cells))
    body, contents, title = _numbered(body)
    page = Template(Path(__file__).with_name("page.html").read_text("utf-8")).substitute(
        title=escape(writer.mathematics(title, form=0) or notebook.stem),
        style=_style(),
        contents=writer.mathematics(contents),
        body=writer.mathematics(body),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(page, "utf-8")
    part.replace(out)
    return out


class _Writer:
    """Cells to HTML. Formulas wait in `formulas` until everything else has been cleaned."""

    def __init__(self, figures: Path, folder: Path):
        self.figures, self.folder = figures, folder
        self.formulas: list[tuple[str, str]] = []  # LaTeX, MathML

    def cell(self, cell: nbformat.NotebookNode) -> str:
        if cell.cell_type == "markdown":
            return self.markdown(cell.source)
        if cell.cell_type != "code" or not cell.source.strip():
            return ""
        code = highlight(cell.source, PythonLexer(), HtmlFormatter(cssclass="highlight"))
        outputs = "\n".join(self.output(output) for output in cell.outputs)
        return f'<details class="code"><summary>Code</summary>{code}</details>\n{outputs}'

    def output(self, output: nbformat.NotebookNode) -> str:
        if output.output_type == "error":
            return f'<pre class="error">{escape(output.ename)}: {escape(output.evalue)}</pre>'
        if output.output_type == "stream":
            text = "\n".join(
                s for s in strip_ansi(output.text).splitlines() if not PROGRESS.search(s)
            )
            return (
                f'<pre class="{escape(output.name)}">{escape(text)}</pre>' if text.strip() else ""
            )
        data, told = output.data, output.metadata
        if WIDGET in data:
            return f'<p class="note">{NOTE}</p>'
        if "figure" in told:
            return self.picture(self.figures / told["figure"], saved=True)
        if "caption_of" in told:
            return ""
        for kind in ("image/png", "image/jpeg", "image/svg+xml"):
            if kind in data:
                raw = data[kind].encode()
                raw = raw if kind.endswith("xml") else base64.b64decode(raw)
                return self.embedded(raw, kind, told.get("caption", ""))
        if "text/html" in data:
            return self.clean(re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.DOTALL))
        for kind in ("text/markdown", "text/latex"):
            if kind in data:
                return self.markdown(data[kind])
        return f"<pre>{escape(strip_ansi(data.get('text/plain', '')))}</pre>"

    def markdown(self, text: str) -> str:
        """Markdown as clean HTML, with placeholders for its formulas."""
        html = markdown2html(MATH.sub(self._set_aside, text))
        return self.clean(re.sub(r'<a class="anchor-link".*?</a>', "", html))

    def _set_aside(self, found: re.Match) -> str:
        if found["code"]:
            return found[0]
        if found["dollar"]:
            return "&#36;"  # money, not to be taken for mathematics later
        latex = (found["block"] or found["line"]).strip()
        self.formulas.append(
            (latex, convert(latex, display="block" if found["block"] else "inline"))
        )
        return f"xFormula{len(self.formulas) - 1}x"

    def mathematics(self, html: str, form: int = 1) -> str:
        """The HTML with its formulas put in: as MathML, or as LaTeX (form=0)."""
        return re.sub(r"xFormula(\d+)x", lambda found: self.formulas[int(found[1])][form], html)

    def clean(self, html: str) -> str:
        """Only harmless elements: anything else, such as a class called <script>, becomes text."""
        html = bleach.clean(
            html,
            TAGS,
            ATTRIBUTES,
            protocols={"http", "https", "mailto", "data"},
            css_sanitizer=CSSSanitizer(),
        )
        html = re.sub(r'(?<=<a href=")(?![\w+.-]+:|#)[^"]+', self._link, html)
        return re.sub(r"(?:<p>)?<img([^>]*)>(?:</p>)?", self._image, html)

    def _link(self, found: re.Match) -> str:
        """A link relative to the notebook, seen from the page."""
        return os.path.relpath(self.folder / found[0], self.figures).replace(os.sep, "/")

    def _image(self, found: re.Match) -> str:
        """A Markdown or HTML image: embedded if it is a file, its description if it is elsewhere."""
        told = dict(re.findall(r'(\w+)="([^"]*)"', found[1]))
        source, words = unescape(told.get("src", "")), unescape(told.get("alt", ""))
        if source.startswith("data:"):
            return found[0]
        if re.match(r"\w+:", source):
            paragraph = found[0].startswith("<p>") and found[0].endswith("</p>")
            return (
                f"<p>{escape(words)}</p>"
                if paragraph
                else found[0].replace(f"<img{found[1]}>", escape(words))
            )
        return self.picture(self.folder / source, words)

    def picture(self, file: Path, words: str = "", saved: bool = False) -> str:
        if not file.exists():
            raise FileNotFoundError(
                f"The report shows {file.name}, but that figure is not there: run `make report` again."
            )
        kind = mimetypes.guess_type(file.name)[0] or "image/png"
        return self.embedded(
            file.read_bytes(), kind, words, self._maker(file.name) if saved else "", saved
        )

    def _maker(self, figure: str) -> str:
        """A link to the notebook of a figure's number; empty if there is none."""
        made = sorted(self.folder.glob(f"{figure[:2]}_*.ipynb"))[:1]
        links = [(os.path.relpath(m, self.figures).replace(os.sep, "/"), m.stem) for m in made]
        return "".join(f' <a href="{escape(where)}">{escape(stem)}</a>' for where, stem in links)

    def embedded(
        self, raw: bytes, kind: str, words: str, link: str = "", saved: bool = False
    ) -> str:
        """A figure with its caption: from the file if it has one, else `words`; `saved` ones in their true size."""
        width = ""
        if kind == "image/png":
            with Image.open(io.BytesIO(raw)) as picture:
                words = getattr(picture, "text", {}).get("Description", "") or words
                width = f' width="{round(picture.width * SCALE)}"' if saved else ""
                smaller = io.BytesIO()  # half the size, and every browser reads it
                picture.convert("RGB").save(smaller, "WEBP", quality=QUALITY, method=6)
            raw, kind = min(
                (raw, kind), (smaller.getvalue(), "image/webp"), key=lambda found: len(found[0])
            )
        data = base64.b64encode(raw).decode()
        image = f'<img src="data:{kind};base64,{data}"{width} alt="{escape(words)}">'
        return f"<figure>{image}<figcaption>{escape(words)}{link}</figcaption></figure>"


def _joined(cells: list) -> list:
    """The cells, neighbouring code cells as one where all but the last show nothing: one fold instead of many."""
    joined: list = []
    for cell in cells:
        last = joined[-1] if joined else None
        if last and cell.cell_type == last.cell_type == "code" and not last.outputs:
            joined[-1] = nbformat.from_dict({**cell, "source": f"{last.source}\n\n\n{cell.source}"})
        else:
            joined.append(cell)
    return joined


def _numbered(body: str) -> tuple[str, str, str]:
    """The body with anchors and numbered captions, its table of contents, and its title."""
    heading, entries, used = "", [], set()
    count = {"Figure": 0, "Table": 0}

    def caption(kind: str, words: str | None) -> str:
        count[kind] += 1
        return f"<b>{kind} {count[kind]}.</b> {(words or '').strip() or heading}"

    def piece(found: re.Match) -> str:
        nonlocal heading
        if found["level"]:
            heading = re.sub(r"<[^>]+>", "", found["title"])
            name = re.sub(r"xFormula\d+x", "", unescape(found["id"] or heading.lower()))
            name = re.sub(r"\s+", "-", name).strip("-") or "section"
            while name in used:
                name += "-"
            used.add(name)
            entries.append((int(found["level"]), name, heading))
            return f'<h{found["level"]} id="{escape(name)}">{found["title"]}</h{found["level"]}>'
        if found["table"] is not None:
            words = caption("Table", found["caption"] or found["before"])
            return f'{found["div"] or ""}<div class="table" tabindex="0"><table{found["table"]}><caption>{words}</caption>'
        if found["figure"] is not None:
            alt = (
                found["alt"]
                if found["figure"]
                else f' alt="{re.sub("xFormula[0-9]+x", "", heading)}">'
            )
            return f"{alt}<figcaption>{caption('Figure', found['below'] or found['figure'])}</figcaption></figure>"
        return "</table></div>"

    body = PIECES.sub(piece, body)
    rows = [
        f'<li class="level{level}"><a href="#{escape(name)}">{words}</a></li>'
        for level, name, words in entries
        if level in (2, 3)
    ]
    title = next((unescape(words) for level, _, words in entries if level == 1), "")
    return body, "\n".join(rows), title


def _style() -> str:
    """page.css and the colours of the code, by day and by night."""
    day, night = (
        HtmlFormatter(style=name).get_style_defs(".highlight")
        for name in ("default", "github-dark")
    )
    own = Path(__file__).with_name("page.css").read_text("utf-8")
    return f"{day}\n@media screen and (prefers-color-scheme: dark) {{\n{night}\n}}\n{own}"
