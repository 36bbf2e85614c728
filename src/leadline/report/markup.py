"""Markup: the one place where text becomes HTML or SVG, and where it is made harmless.

Class names and file names come from other people's disks. Everything that reaches the page goes
through `escape`, which also replaces what XML has no form for (control characters, and the lone
surrogates that stand for file names in no known encoding).
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def escape(text: object) -> str:
    """Any text as HTML that shows exactly it.

    >>> escape('<b>"ham" & eggs</b>')
    '&lt;b&gt;&quot;ham&quot; &amp; eggs&lt;/b&gt;'
    """
    return html.escape(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(text)), quote=True)


def element(name: str, attributes: Mapping[str, object] | None = None, *, inside: str = "") -> str:
    """One element; attribute values are escaped, `inside` is markup already.

    >>> element("text", {"x": 1.50, "class": "a & b"}, inside=escape("<3"))
    '<text x="1.5" class="a &amp; b">&lt;3</text>'
    """
    listed = "".join(
        f' {key}="{coordinate(value) if isinstance(value, float) else escape(value)}"'
        for key, value in (attributes or {}).items()
    )
    return f"<{name}{listed}>{inside}</{name}>" if inside else f"<{name}{listed}/>"


def coordinate(value: float) -> str:
    """A coordinate with at most two decimals: a hundredth of a pixel is enough.

    >>> coordinate(12.0), coordinate(3.14159), coordinate(-0.001)
    ('12', '3.14', '0')
    """
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def prose(text: str) -> str:
    """A paragraph; a number keeps its percent sign on its line.

    >>> prose("99.2 % & more")
    '<p>99.2&nbsp;% &amp; more</p>'
    """
    return f"<p>{tied(text)}</p>"


def tied(text: str) -> str:
    """Text as HTML in which a number keeps its unit, and a product its factors, on one line.

    >>> tied("97 % of 8 × 8")
    '97&nbsp;% of 8&nbsp;×&nbsp;8'
    """
    return escape(text).replace(" %", "&nbsp;%").replace(" × ", "&nbsp;×&nbsp;")


def code(text: str) -> str:
    """Lines to be copied, as they are."""
    return f"<pre><code>{escape(text)}</code></pre>"


def section(title: str, *parts: str, anchor: str) -> str:
    """A chapter of the page, which the table of contents can point to."""
    return (
        f'<section id="{escape(anchor)}"><h2>{escape(title)}</h2>\n'
        + "\n".join(part for part in parts if part)
        + "\n</section>"
    )


def figure(drawing: str, *, caption: str, kind: str = "") -> str:
    """A drawing with the sentence that says how to read it."""
    return (
        f'<figure class="{escape(kind)}"><div class="drawing">{drawing}</div>'
        f"<figcaption>{tied(caption)}</figcaption></figure>"
    )


WIDE = 4
"""Columns beyond which a table scrolls on a small screen instead of breaking its lines."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column's heading and whether it holds numbers, text, code or a bar."""

    name: str
    kind: str = "text"


def table(
    columns: Iterable[Column], rows: Iterable[Iterable[str]], *, footer: Iterable[str] = ()
) -> str:
    """A table; the cells are markup already, one per column.

    >>> drawn = table([Column(name="n", kind="number")], [["1"], ["2"]])
    >>> drawn.count("<tr>"), '<td class="number">2</td>' in drawn
    (3, True)
    """
    columns = list(columns)

    def line(cells: Iterable[str], tag: str) -> str:
        joined = "".join(
            f'<{tag} class="{escape(column.kind)}">{cell}</{tag}>'
            for column, cell in zip(columns, cells, strict=True)
        )
        return f"<tr>{joined}</tr>"

    head = line((escape(column.name) for column in columns), "th")
    body = "\n".join(line(row, "td") for row in rows)
    cells = list(footer)
    foot = f"<tfoot>{line(cells, 'td')}</tfoot>" if cells else ""
    kind = "wide" if len(columns) > WIDE else "narrow"
    return (
        f'<div class="scroll"><table class="{kind}"><thead>{head}</thead><tbody>\n{body}\n</tbody>'
        f"{foot}</table></div>"
    )


def folded(summary: str, inside: str, *, opened: bool = False) -> str:
    """A part that is folded away until it is asked for; in print it is always open."""
    flag = " open" if opened else ""
    return f"<details{flag}><summary>{escape(summary)}</summary>\n{inside}\n</details>"
