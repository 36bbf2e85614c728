"""From words to options: one dataclass per verb, read by tyro; its field names are the flags."""

from __future__ import annotations

from typing import TypeVar

import tyro

O = TypeVar("O")


def parse(
    cls: type[O], words: list[str], *, verb: str, caption: str, default: O | None = None
) -> O:
    """The options of a verb; a wrong one is explained on stderr and exits with 2."""
    return tyro.cli(
        cls,
        args=words,
        prog=f"leadline {verb}",
        description=caption,
        default=default,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
