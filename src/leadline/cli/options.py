"""From words to options: one dataclass per verb, read by tyro; its field names are the flags."""

from __future__ import annotations

from typing import TypeVar

import tyro

Options = TypeVar("Options")

JSON_NOTE = "With --json, the last line on standard output is one JSON object."


def parse(
    cls: type[Options],
    words: list[str],
    *,
    verb: str,
    caption: str,
    default: Options | None = None,
) -> Options:
    """The options of a verb; SystemExit after the help (0) or an explanation on stderr (2)."""
    return tyro.cli(
        cls,
        args=words,
        prog=f"leadline {verb}",
        description=f"{caption.strip()}\n\n{JSON_NOTE}",
        default=tyro.MISSING_NONPROP if default is None else default,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
