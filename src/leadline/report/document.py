"""The document around a page: head, styles and foot, everything inside one file."""

from __future__ import annotations

from importlib.resources import files

from leadline.report.markup import escape


def document(title: str, body: str, *, kind: str = "report") -> str:
    """A whole HTML file; `body` is markup, `kind` says of what sort the page is."""
    style = files("leadline.report").joinpath("page.css").read_text()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="generator" content="Leadline">\n'
        f"<title>{escape(title)}: Leadline {escape(kind)}</title>\n<style>\n{style}</style>\n"
        f"</head>\n<body>\n<main>\n{body}\n"
        "<footer>Written by Leadline. This file is complete: it needs no network.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )
