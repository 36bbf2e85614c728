"""A checkup in words: the verdict, the findings with their evidence, the layers in depth order.

Plain text, for `print`; a bar is the power of ten of its number between the smallest and the
largest of the column, so that what vanishes or explodes over the depth is a slope to the eye.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from leadline.doctor.finding import SEVERITIES, Finding
from leadline.measure.survey import LayerRecord, Survey

WIDTH = 96
BAR = 8
MOST_ROWS = 40
"""A deeper network is thinned out to so many rows, those of the findings always among them."""

PASSING = ("Identity",)
"""Kinds that do nothing, left out of the table."""

EIGHTHS = " ▏▎▍▌▋▊▉█"
RANGE = 6.0
"""Powers of ten that a full bar stands for, at least: smaller differences are not a slope."""


def describe_checkup(
    *,
    model: str,
    survey: Survey | None,
    findings: Sequence[Finding],
    loss: float,
    expected: float | None,
    seconds: float,
) -> str:
    """The whole checkup as text."""
    parts = [_headline(model, findings, seconds)]
    if survey is not None:
        start = f"loss at the start {loss:.4g}"
        if expected is not None:
            start += f" (a network that knows nothing: {expected:.4g})"
        parts.append(start)
    parts += [_finding(finding) for finding in findings]
    if survey is not None and survey.layers:
        parts.append(layer_table(survey.layers, marked=_named(findings)))
    return "\n\n".join(parts)


def _headline(model: str, findings: Sequence[Finding], seconds: float) -> str:
    counts = [
        f"{count} {severity}{'s' * (count != 1)}"
        for severity in SEVERITIES
        if (count := sum(finding.severity == severity for finding in findings))
    ]
    verdict = ", ".join(counts) if counts else "nothing wrong was found"
    return f"{model}: {verdict} ({seconds:.{1 if seconds >= 1 else 2}f} s)"


def _finding(finding: Finding) -> str:
    lines = [_wrapped(f"{finding.severity.upper():<8}{finding.cause}: ", finding.summary, indent=8)]
    if finding.layers:
        shown = ", ".join(finding.layers[:4])
        more = f" and {len(finding.layers) - 4} more" if len(finding.layers) > 4 else ""
        lines.append(_wrapped("        where    ", shown + more))
    for entry in finding.evidence:
        lines.append(_wrapped("        evidence ", str(entry)))
    lines.append(_wrapped("        do this  ", finding.remedy))
    if finding.source:
        lines.append(_wrapped("        source   ", finding.source))
    return "\n".join(lines)


def _wrapped(label: str, text: str, *, indent: int | None = None) -> str:
    behind = " " * (len(label) if indent is None else indent)
    return textwrap.fill(label + text, WIDTH, subsequent_indent=behind, break_long_words=False)


def _named(findings: Sequence[Finding]) -> frozenset[str]:
    names = {layer for finding in findings for layer in finding.layers}
    return frozenset(names | {name.rpartition(".")[0] for name in names})


def layer_table(layers: Sequence[LayerRecord], *, marked: frozenset[str] = frozenset()) -> str:
    """The layers as lines: name, kind, output, spread and gradient with their bars, silent units.

    `marked` layers get an arrow, and are kept when a deep network is thinned out.
    """
    layers = [layer for layer in layers if layer.kind not in PASSING]
    rows = _thinned(layers, marked)
    name_width = min(36, max(len("layer"), *(len(layer.name) for _, layer in rows)))
    kind_width = min(18, max(len("kind"), *(len(layer.kind) for _, layer in rows)))
    stds = [layer.std for layer in layers]
    gradients = [layer.gradient or 0.0 for layer in layers]
    number = f"{'spread':>9} {'':{BAR}}  {'gradient':>9} {'':{BAR}}"
    head = f"  {'':>4} {'layer':<{name_width}}  {'kind':<{kind_width}}  {'output':<18}{number}"
    lines = [f"{head}  silent"]
    for index, layer in rows:
        lines.append(
            f"{'▶' if layer.name in marked else ' '} {index + 1:>4} "
            f"{_cut(layer.name, name_width):<{name_width}}  "
            f"{_cut(layer.kind, kind_width):<{kind_width}}  "
            f"{_shape(layer.shape):<18}"
            f"{_number(layer.std):>9} {_bar(layer.std, stds)}  "
            f"{_number(layer.gradient):>9} {_bar(layer.gradient or 0.0, gradients)}"
            f"  {'' if math.isnan(layer.silent) else f'{layer.silent:.0%}':>6}"
        )
    if len(rows) < len(layers):
        lines.append(f"  {len(rows)} of {len(layers)} layers are shown")
    lines.append("  spread: standard deviation of the outputs; gradient: root mean square of the")
    lines.append("  loss's gradient by them; silent: units that say the same for the whole batch")
    return "\n".join(line.rstrip() for line in lines)


def _thinned(
    layers: Sequence[LayerRecord], marked: frozenset[str]
) -> list[tuple[int, LayerRecord]]:
    count = len(layers)
    if count <= MOST_ROWS:
        return list(enumerate(layers))
    named = [index for index, layer in enumerate(layers) if layer.name in marked][: MOST_ROWS // 2]
    spread = MOST_ROWS - len(named)
    even = {round(step * (count - 1) / (spread - 1)) for step in range(spread)}
    return [(index, layers[index]) for index in sorted(even | set(named))]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape[1:])) or "1"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2e}"


def _bar(value: float, column: Sequence[float]) -> str:
    """A bar of `BAR` characters for the power of ten; empty for 0 and what is not finite."""
    powers = [math.log10(entry) for entry in column if 0 < entry < math.inf]
    if not 0 < value < math.inf or not powers:
        return " " * BAR
    high = max(powers)
    low = min(min(powers), high - RANGE) - RANGE / BAR
    eighths = round((math.log10(value) - low) / (high - low) * BAR * 8)
    full, rest = divmod(max(1, eighths), 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(BAR)
