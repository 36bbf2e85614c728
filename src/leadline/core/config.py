"""Frozen dataclasses to JSON and back, with every error collected before one is raised.

A configuration is a tree of frozen, keyword-only dataclasses whose leaves are bool, int, float,
str, None, Literal choices, or tuples of these. Its JSON form is the plain nested object. Reading
checks every key and every type, then hands the values to the classes, whose own `__post_init__`
checks their ranges; all complaints arrive together, each with its dotted place.
"""

from __future__ import annotations

import dataclasses
import json
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from leadline.core.errors import ConfigError
from leadline.core.names import did_you_mean

C = TypeVar("C")


def to_plain(config: Any) -> Any:
    """A configuration as plain dictionaries and lists, in field order."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple):
        return [to_plain(entry) for entry in config]
    return config


def read_text(kind: Any, text: str, *, place: str, problems: list[str]) -> Any:
    """The value of type `kind` that `text` says, as words of a command line do.

    Whatever cannot be read is told in `problems`, with `place` as its name.

    >>> read_text(tuple[int, ...], "3,4,6,3", place="counts", problems=[])
    (3, 4, 6, 3)
    >>> read_text(float | None, "none", place="rate", problems=[]) is None
    True
    """
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        words = [word.strip() for word in text.strip("()[]").split(",") if word.strip()]
        entries = [_word(inner, word) for word in words]
        return _read(kind, entries, place=place, problems=problems)
    return _read(kind, _word(kind, text), place=place, problems=problems)


def _word(kind: Any, text: str) -> Any:
    """A word as JSON has it, text where the kind is text."""
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    lowered = {"true": True, "false": False, "none": None}
    if text.lower() in lowered:
        return lowered[text.lower()]
    if str in kinds or get_origin(kind) is Literal:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def to_json(config: Any) -> str:
    """A configuration as indented JSON text that `from_json` reads back to an equal one."""
    return json.dumps(to_plain(config), indent=2) + "\n"


def from_json(cls: type[C], text: str, *, source: str = "JSON") -> C:
    """Read a configuration of class `cls` from JSON text; `source` names it in errors."""
    try:
        plain = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            expected=f"JSON text for a {cls.__name__}",
            received=f"{source}: {error}",
            remedy="mend the text at that place, or write it anew from a valid one",
        ) from error
    return from_plain(cls, plain, source=source)


def from_plain(cls: type[C], plain: Any, *, source: str = "the configuration") -> C:
    """Build a configuration of class `cls` from plain values; raise all problems in one error.

    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Point:
    ...     x: float
    ...     y: float = 0.0
    >>> from_plain(Point, {"x": 1})
    Point(x=1.0, y=0.0)
    """
    problems: list[str] = []
    value = _read(cls, plain, place="", problems=problems)
    if problems:
        raise config_error(cls.__name__, problems, source=source)
    return value  # type: ignore[no-any-return]  # _read returns an instance of cls when no problem


def config_error(name: str, problems: list[str], *, source: str = "") -> ConfigError:
    """One error that lists every problem found in a configuration called `name`."""
    listing = "".join(f"\n  - {problem}" for problem in problems)
    return ConfigError(
        expected=f"a valid {name}",
        received=f"{source + ' with ' if source else ''}{len(problems)} problem"
        f"{'s' if len(problems) > 1 else ''}:{listing}",
        remedy="mend what is listed; the other values are fine",
        problems=tuple(problems),
    )


def check(config: Any, *problems: str | None) -> None:
    """Raise one error with every problem that is not None; called from `__post_init__`.

    Values of another type than the field's, and Literals that are none of the choices, are
    problems as well: code can pass them as JSON can.
    """
    found = _wrong_types(config) or [problem for problem in problems if problem is not None]
    if found:
        raise config_error(type(config).__name__, found)


def in_range(
    name: str,
    value: float | None,
    low: float,
    high: float = float("inf"),
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> str | None:
    """A sentence when `value` lies outside the interval, otherwise None (None always passes).

    >>> in_range("lr", -1.0, 0, open_low=True)
    'lr must be > 0, received -1.0'
    """
    if value is None:
        return None
    above = value > low if open_low else value >= low
    below = value < high if open_high else value <= high
    if above and below:
        return None
    bounds = f"{'>' if open_low else '>='} {low}"
    if high != float("inf"):
        bounds += f" and {'<' if open_high else '<='} {high}"
    return f"{name} must be {bounds}, received {value}"


def _wrong_types(config: Any) -> list[str]:
    if not dataclasses.is_dataclass(config):
        return []
    hints = get_type_hints(type(config))
    problems: list[str] = []
    for field in dataclasses.fields(config):
        if _is_plain(hints[field.name]):
            value = getattr(config, field.name)
            _read(hints[field.name], value, place=field.name, problems=problems)
    return problems


def _is_plain(kind: Any) -> bool:
    """Whether a field holds plain values, as configurations do; a Setup has functions as well."""
    if get_origin(kind) in (Union, types.UnionType, tuple):
        return all(_is_plain(part) for part in get_args(kind) if part is not Ellipsis)
    return get_origin(kind) is Literal or kind in (bool, int, float, str, types.NoneType)


def _read(kind: Any, value: Any, *, place: str, problems: list[str]) -> Any:
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, place=place, problems=problems)
    origin = get_origin(kind)
    if origin is Literal:
        if value not in get_args(kind):
            choices = ", ".join(map(repr, get_args(kind)))
            hint = did_you_mean(value, map(str, get_args(kind))) if isinstance(value, str) else ""
            problems.append(f"{place} must be one of {choices}, received {value!r}{hint}")
        return value
    if origin in (Union, types.UnionType):
        return _read_union(get_args(kind), value, place=place, problems=problems)
    if origin is tuple:
        return _read_tuple(get_args(kind), value, place=place, problems=problems)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is type(None):
        kind = types.NoneType
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        problems.append(f"{place} must be {_name(kind)}, received {value!r} ({_name(type(value))})")
    return value


def _read_dataclass(kind: Any, value: Any, *, place: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{place or kind.__name__} must be an object, received {value!r}")
        return value
    fields = {f.name: f for f in dataclasses.fields(kind)}
    hints = get_type_hints(kind)
    before = len(problems)
    prefix = f"{place}." if place else ""
    for key in value:
        if key not in fields:
            problems.append(f"unknown key {prefix}{key}{did_you_mean(key, fields)}")
    arguments = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = _read(
                hints[name], value[name], place=f"{prefix}{name}", problems=problems
            )
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"missing key {prefix}{name}")
    if len(problems) > before:
        return value
    try:
        return kind(**arguments)
    except ConfigError as error:
        problems.extend(f"{prefix}{problem}" for problem in error.problems)
        return value


def _read_union(kinds: tuple[Any, ...], value: Any, *, place: str, problems: list[str]) -> Any:
    complaints: list[str] = []
    for kind in kinds:
        attempt: list[str] = []
        result = _read(kind, value, place=place, problems=attempt)
        if not attempt:
            return result
        if kind is not types.NoneType:
            complaints.extend(attempt)
    problems.append(complaints[0])
    return value


def _read_tuple(kinds: tuple[Any, ...], value: Any, *, place: str, problems: list[str]) -> Any:
    if not isinstance(value, list | tuple):
        problems.append(f"{place} must be a list, received {value!r}")
        return value
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        problems.append(f"{place} must have {len(kinds)} entries, received {len(value)}")
        return value
    return tuple(
        _read(kind, entry, place=f"{place}[{i}]", problems=problems)
        for i, (kind, entry) in enumerate(zip(kinds, value, strict=True))
    )


def _name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(
        kind, "null" if kind is types.NoneType else str(getattr(kind, "__name__", kind))
    )
