"""From words to options: one dataclass per verb, read by tyro; its field names are the flags."""

from __future__ import annotations

from typing import TypeVar

import tyro

Options = TypeVar("Options")


def parse(
    cls: type[Options],
    words: list[str],
    *,
    verb: str,
    caption: str,
    default: Options | None = None,
) -> Options:
    """The options of a verb; a wrong one is explained on stderr and exits with 2."""
    return tyro.cli(
        cls,
        args=words,
        prog=f"leadline {verb}",
        description=caption,
        default=tyro.MISSING_NONPROP if default is None else default,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
