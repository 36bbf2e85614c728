"""Tests of the frame around a page."""

from __future__ import annotations

from leadline.report.document import document


def test_a_document_is_complete_and_its_title_harmless() -> None:
    page = document("<b>digits</b>", "<p>body</p>", kind="diagnosis")
    assert page.startswith("<!doctype html>") and page.endswith("</html>\n")
    assert "<title>&lt;b&gt;digits&lt;/b&gt;: Leadline diagnosis</title>" in page
    assert "<p>body</p>" in page and "--series-0" in page
    assert "<script" not in page and "http" not in page
