"""Tests that text becomes markup, and harmless."""

from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from leadline.report.markup import (
    Column,
    code,
    coordinate,
    element,
    escape,
    figure,
    folded,
    prose,
    section,
    table,
    tied,
)

HOSTILE = "</td><script>alert(1)</script>\"' onload=x & \x00\x1b[31m\ud83d"


class Elements(HTMLParser):
    """Gathers the elements and the text of a piece of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.names += [f"@{name}" for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("wrap", [escape, prose, code, tied])
def test_hostile_text_adds_no_element_and_no_attribute(wrap: object) -> None:
    assert callable(wrap)
    found = Elements(wrap(HOSTILE))
    assert set(found.names) <= {"p", "pre", "code"}
    assert "<script>alert(1)</script>" in "".join(found.texts)


def test_what_cannot_be_written_is_replaced() -> None:
    assert escape("a\x00b\udcffc") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"
    escape(HOSTILE).encode()


def test_an_attribute_cannot_be_left() -> None:
    parsed = ElementTree.fromstring(element("a", {"title": '"><b x="'}))
    assert parsed.attrib == {"title": '"><b x="'}
    assert list(parsed) == []


@pytest.mark.parametrize(("value", "text"), [(1 / 3, "0.33"), (100.0, "100"), (-0.004, "0")])
def test_coordinates_have_two_decimals_at_most(value: float, text: str) -> None:
    assert coordinate(value) == text


def test_a_table_has_a_cell_per_column_and_refuses_others() -> None:
    columns = [Column(name="a"), Column(name="b", kind="number")]
    drawn = ElementTree.fromstring(table(columns, [["1", "2"]], footer=["", "3"]))
    assert [cell.text for cell in drawn.iter("td")] == ["1", "2", None, "3"]
    assert [cell.get("class") for cell in drawn.iter("th")] == ["text", "number"]
    with pytest.raises(ValueError, match="zip"):
        table(columns, [["1"]])


def test_a_section_can_be_linked_to_and_leaves_out_what_is_empty() -> None:
    drawn = ElementTree.fromstring(section("Title", "", "<p>x</p>", anchor="here"))
    assert drawn.get("id") == "here"
    assert [child.tag for child in drawn] == ["h2", "p"]


def test_a_figure_carries_its_caption() -> None:
    drawn = ElementTree.fromstring(figure("<svg/>", caption="5 < 6").replace("&nbsp;", " "))
    assert drawn.find("figcaption") is not None
    assert "".join(drawn.itertext()) == "5 < 6"


def test_a_folded_part_says_what_is_in_it() -> None:
    drawn = ElementTree.fromstring(folded("more & more", "<p/>"))
    assert drawn.tag == "details"
    assert drawn[0].text == "more & more"
    assert "open" not in drawn.attrib
