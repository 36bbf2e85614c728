"""Tests of the report: its parts, its harmlessness, its size; and how a browser draws it."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from leadline.core.errors import FileError
from leadline.data.examples import Examples
from leadline.report.page import CONTENTS, write_report
from leadline.tasks.classification import Classification

HOSTILE = (
    "<script>document.title='broken'</script>",
    '"><img src=x onerror=alert(1)>',
    "a very long name of a class that does not fit into any column of the table",
    "T-shirt/top & more",
    "\udcff\x00\x1b[31m",
    "日本語",
    "שלום",
    "'",
    "",
    "\u202eevil",
)
VOID = {"meta", "img", "br", "link"}


def report(case: Any) -> Path:
    return write_report(
        case.run,
        model=case.model,
        dataset=case.dataset,
        outputs=case.outputs,
        targets=case.targets,
        result=case.result,
    )


@pytest.fixture(scope="module")
def page(finished: Any) -> Path:
    return report(finished)


@pytest.fixture(scope="module")
def hostile(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(finished.renamed(tmp_path_factory.mktemp("hostile") / "<b>run", HOSTILE))


OF_SOME = ("doctor", "diagnosis")  # chapters of a run that was attended, or diagnosed


class Outline(HTMLParser):
    """Checks that every element is closed where it should be; keeps tags, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_has_every_chapter_and_its_contents_link_to_them(page: Path) -> None:
    outline = Outline(page.read_text())
    anchors = [attrs["id"] for tag, attrs in outline.tags if tag == "section"]
    links = [attrs["href"] for tag, attrs in outline.tags if tag == "a"]
    assert anchors == [anchor for anchor in CONTENTS if anchor not in OF_SOME]
    assert links == [f"#{anchor}" for anchor in anchors]


def test_the_verdict_comes_first_and_is_true(finished: Any, page: Path) -> None:
    right = int((finished.outputs.argmax(1) == finished.targets).sum())
    sentence = re.search(r'<p class="verdict">(.*?)</p>', page.read_text())
    assert sentence
    assert f"Of {len(finished.targets)} test images" in sentence[1]
    assert f"names {right} correctly" in sentence[1]
    assert "trained in 1.2 s." in sentence[1]


@pytest.mark.parametrize("which", ["page", "hostile"])
def test_the_report_asks_nothing_of_anyone(which: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(which).read_text()
    outline = Outline(text)
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in outline.tags}
    for tag, attrs in outline.tags:
        assert not [name for name in attrs if name.startswith("on")]
        source = attrs.get("src") or attrs.get("href") or "#"
        assert source.startswith(("data:image/png;base64,", "#")), (tag, source[:80])
    assert not re.search(r"url\(|@import", text)


def test_hostile_names_are_shown_as_they_are(hostile: Path) -> None:
    outline = Outline(hostile.read_text())
    assert HOSTILE[0] in outline.text
    assert HOSTILE[1] in outline.text
    assert "<b>run" in outline.text


def test_a_folder_that_cannot_be_written_is_named_and_the_old_report_stays(
    finished: Any, tmp_path: Path
) -> None:
    copy = finished.renamed(tmp_path / "run", finished.dataset.class_names)
    copy.run.report_file.mkdir()
    with pytest.raises(FileError, match=r"report\.html"):
        report(copy)
    assert [path.name for path in copy.run.folder.glob("*.tmp")] == []


def test_ten_thousand_images_take_three_seconds_and_three_megabytes_at_most(
    finished: Any, tmp_path: Path
) -> None:
    """Noise in colour, 224 pixels a side, is the least compressible picture there is."""
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(10_000, 100, generator=generator)
    targets = torch.randint(100, (10_000,), generator=generator)
    few = torch.randint(256, (100, 3, 224, 224), dtype=torch.uint8, generator=generator)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 224 * 224, 100))
    case = finished.renamed(tmp_path / "run", tuple(f"class {i}" for i in range(100)))
    examples = Repeated(few, targets)
    dataset = dataclasses.replace(case.dataset, train=examples, val=examples, test=examples)
    result = Classification(100).evaluate(outputs, targets)
    case = dataclasses.replace(
        case, model=model, dataset=dataset, outputs=outputs, targets=targets, result=result
    )
    begun = time.process_time()
    size = report(case).stat().st_size
    assert time.process_time() - begun < 3
    assert size < 3e6


class Repeated(Examples):
    """A hundred pictures that stand for ten thousand."""

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        self.images, self.targets = images, targets
        self.shape = tuple(images.shape[1:])

    def take(self, indices: Tensor) -> Tensor:
        return self.images[indices % len(self.images)]

    def label(self, index: int) -> str:
        return f"folder/with/a/long/path/picture-{index:06d}.jpeg"

    def subset(self, indices: Tensor) -> Repeated:
        return Repeated(self.images, self.targets[indices])


# ---------------------------------------------------------------- as a browser draws it

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

MEASURE = """
<script>
addEventListener('load', () => {
  const overlaps = [], outside = [];
  const box = element => element.getBoundingClientRect();
  const figures = [...document.querySelectorAll('figure svg[role=img]')];
  for (const figure of figures) {
    const frame = box(figure);
    const texts = [...figure.querySelectorAll('text')].map(e => [e.textContent, box(e)]);
    texts.forEach(([a, p], i) => {
      if (p.left < frame.left - 1 || p.right > frame.right + 1
          || p.top < frame.top - 1 || p.bottom > frame.bottom + 1) outside.push(a);
      for (const [b, q] of texts.slice(i + 1))
        if (Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1
            && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 2) overlaps.push([a, b]);
    });
  }
  const images = [...document.images];
  const measured = {
    width: innerWidth, wide: document.documentElement.scrollWidth, overlaps, outside,
    images: images.length, broken: images.filter(i => !i.complete || !i.naturalWidth).length,
    figures: figures.map(e => box(e).width), title: document.title,
    sections: document.querySelectorAll('section').length,
  };
  document.body.textContent = 'MEASURED' + JSON.stringify(measured) + 'DONE';
});
</script>
"""
"""Appended to a copy of the report: finds texts that overlap or are cut off, and the like."""


def browse(page: Path, *options: str) -> str:
    """Open a page in a headless browser; what it prints."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert found, (
        "expected a browser to draw the report, one of " + ", ".join(BROWSERS) + "\n"
        "received none on PATH\ndo this  apt-get install chromium"
    )
    profile = page.parent / "browser-profile"
    command = [
        *(found, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *("--disable-sync", "--hide-scrollbars", "--disable-dev-shm-usage"),
        f"--user-data-dir={profile}",
        *options,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def measured(page: Path, folder: Path, *, width: int) -> dict[str, Any]:
    """What a copy of the page, with a script that measures it, finds in a window of `width`."""
    copy = folder / "measured.html"
    copy.write_text(page.read_text().replace("</body>", MEASURE + "</body>"))
    dumped = browse(copy, "--dump-dom", f"--window-size={width},900")
    found = re.search(r"<body>MEASURED(.*?)DONE", dumped, re.DOTALL)
    assert found, dumped[-2000:]
    result: dict[str, Any] = json.loads(html.unescape(found[1]))
    return result


@pytest.mark.parametrize("width", [1100, 500])
@pytest.mark.parametrize("which", ["page", "hostile"])
def test_a_browser_draws_it_without_overlaps_or_sideways_scrolling(
    which: str, width: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found = measured(request.getfixturevalue(which), tmp_path, width=width)
    assert found["width"] == width
    assert found["wide"] <= width
    assert found["overlaps"] == []
    assert found["outside"] == []
    assert found["broken"] == 0
    assert found["images"] > 0
    assert len(found["figures"]) == 10
    assert min(found["figures"]) > 300
    assert found["sections"] == len(CONTENTS) - len(OF_SOME)
    assert found["title"] == "mlp on digits: Leadline report"


@pytest.mark.parametrize(("scheme", "dark"), [(0, True), (1, False)])
def test_the_page_follows_the_readers_light_or_dark_mode(
    page: Path, tmp_path: Path, scheme: int, dark: bool
) -> None:
    picture = tmp_path / "page.png"
    browse(
        page,
        f"--screenshot={picture}",
        "--window-size=1000,1500",
        f"--blink-settings=preferredColorScheme={scheme}",
    )
    pixels = np.asarray(Image.open(picture).convert("L")).astype(float)
    assert bool(np.median(pixels) < 60) is dark
    assert pixels.std() > 8  # something is drawn on it


def test_it_prints_on_pages_of_paper(page: Path, tmp_path: Path) -> None:
    printed = tmp_path / "report.pdf"
    browse(page, f"--print-to-pdf={printed}", "--no-pdf-header-footer")
    content = printed.read_bytes()
    pages = len(re.findall(rb"/Type\s*/Page\b", content))
    assert content.startswith(b"%PDF")
    assert 5 <= pages <= 20
