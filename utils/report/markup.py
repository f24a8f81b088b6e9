"""Markdown and HTML from notebooks as clean HTML: harmless elements, MathML, links that work."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape, unescape
from html.parser import HTMLParser

import nh3
from latex2mathml.converter import convert
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

TAGS = set(
    "a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption "
    "figure h1 h2 h3 h4 h5 h6 hr i img kbd li ol p pre s small span strong sub summary sup table "
    "tbody td tfoot th thead tr u ul".split()
)
ATTRIBUTES = {
    "*": {"class", "id", "title", "style"},
    "a": {"href"},
    "img": {"src", "alt", "width"},
    "td": {"colspan", "rowspan", "data-head"},
    "th": {"colspan", "rowspan", "scope"},
    "ol": {"start"},
    "div": {"tabindex"},
}
SCHEMES = {"http", "https", "mailto", "data"}
# in Markdown source; code first, so that a dollar in it stays a dollar
MATH = re.compile(
    r"(?P<code>^~~~.*?^~~~|(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`))"
    r"|\$\$(?P<block>.+?)\$\$"
    r"|(?<![\\$\w])\$(?P<line>(?=[^\s$])(?:(?!\n\n)(?:\\.|[^$\\`]))*?(?<!\s))\$(?![\d$])"
    r"|(?P<dollar>\\?\$)",
    re.DOTALL | re.MULTILINE,
)
NUMBER = re.compile(r"^\d\d · ")  # of a notebook, which says nothing on a page
PLACE = re.compile(r"xFormula(\d+)x")


@dataclass
class Heading:
    """A heading of level 2 or 3: its anchor, its words as HTML, and what stands under it."""

    anchor: str
    html: str
    parts: list[Heading] = field(default_factory=list)


class Markup:
    """Turns Markdown and HTML into clean HTML, and remembers headings and formulas.

    link: maps an address that is relative to the notebook; image: (address, words) -> HTML of a
    picture.
    """

    def __init__(self, link: Callable[[str], str], image: Callable[[str, str], str]) -> None:
        self.link, self.image = link, image
        self.title = self.heading = self.words = ""
        self.sections: list[Heading] = []
        self._anchors: set[str] = set()
        self._formulas: list[tuple[str, str]] = []  # LaTeX, MathML

    def prose(self, markdown: str) -> str:
        """Markdown as clean HTML."""
        text = MATH.sub(self._set_aside, markdown)
        return self._with_formulas(MarkdownWithMath(renderer=_Renderer(self)).render(text))

    def clean(self, html: str) -> str:
        """Only harmless elements; any other, such as a class called <script>, becomes text."""
        kept = _Known()
        kept.feed(html)
        kept.close()
        return nh3.clean(
            "".join(kept.parts),
            tags=TAGS,
            attributes=ATTRIBUTES,
            url_schemes=SCHEMES,
            link_rel=None,
        )

    def add_heading(self, html: str, level: int) -> str:
        """A heading with an anchor of its own, noted for the contents."""
        bare = nh3.clean(html, tags=set())
        words = PLACE.sub("", unescape(bare))
        anchor = "-".join("".join(c if c.isalnum() else " " for c in words.lower()).split())
        anchor = anchor or "section"
        while anchor in self._anchors:
            anchor += "-"
        self._anchors.add(anchor)
        self.heading, self.words = self._with_formulas(html), words.strip()
        if level == 1 and not self.title:
            bare, html = (NUMBER.sub("", words) for words in (bare, html))
            self.title = PLACE.sub(lambda m: self._formulas[int(m[1])][0], unescape(bare))
        elif level == 2:
            self.sections.append(Heading(anchor, self._with_formulas(html)))
        elif level == 3 and self.sections:
            self.sections[-1].parts.append(Heading(anchor, self._with_formulas(html)))
        return f'<h{level} id="{anchor}">{html}</h{level}>\n'

    def _set_aside(self, match: re.Match) -> str:
        """A placeholder for a formula; code and money stay."""
        if match["code"]:
            return match[0]
        if match["dollar"]:
            return "&#36;"
        latex = (match["block"] or match["line"]).strip()
        display = "block" if match["block"] else "inline"
        self._formulas.append((latex, convert(latex, display=display)))
        return f"xFormula{len(self._formulas) - 1}x"

    def _with_formulas(self, html: str) -> str:
        return PLACE.sub(lambda match: self._formulas[int(match[1])][1], html)


class _Renderer(IPythonRenderer):
    """nbconvert's renderer of Markdown, with the page's headings, links, pictures and tags."""

    def __init__(self, markup: Markup) -> None:
        super().__init__(escape=False, exclude_anchor_links=True)
        self.markup = markup

    def heading(self, text: str, level: int, **attrs: object) -> str:
        return self.markup.add_heading(text, level)

    def link(self, text: str, url: str, title: str | None = None) -> str:
        if url.startswith("#") or url.partition(":")[0] in SCHEMES:
            return super().link(text, url, title)
        return super().link(text, self.markup.link(url), title)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return self.markup.image(url, text)

    def inline_html(self, html: str) -> str:
        return self.markup.clean(html) if html.startswith("<!--") else _known(html)

    def block_html(self, html: str) -> str:
        return self.markup.clean(html)

    def table(self, text: str) -> str:
        return f'<div class="table" tabindex="0"><table>\n{text}</table></div>\n'


def _known(tag: str) -> str:
    """An inline tag as it is if it is plain and harmless, else as text."""
    name = tag.strip("</>").split(" ")[0].lower()
    return tag if name in TAGS and " " not in tag.strip() else escape(tag)


class _Known(HTMLParser):
    """HTML with the tags of TAGS; every other is text, and style sheets are left out."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.parts: list[str] = []
        self._style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        raw = self.get_starttag_text() or ""
        self._style = tag == "style"
        source = dict(attrs).get("src") or "data:"
        if tag == "img" and not source.startswith("data:"):
            self.parts.append(escape(dict(attrs).get("alt") or ""))  # the page asks for nothing
        elif not self._style:
            self.parts.append(raw if tag in TAGS else escape(raw))

    handle_startendtag = handle_starttag

    def handle_endtag(self, tag: str) -> None:
        if tag != "style":
            self.parts.append(f"</{tag}>" if tag in TAGS else f"&lt;/{tag}&gt;")
        self._style = False

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.parts.append(data.replace("<", "&lt;"))

    def handle_entityref(self, name: str) -> None:
        self.parts.append(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.parts.append(f"&#{name};")
