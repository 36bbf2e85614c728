"""Extras: the one place where a package that an extra installs is imported, when it is needed."""

from __future__ import annotations

import importlib
from types import ModuleType

from leadline.core.errors import ConfigError


def import_extra(module: str, *, extra: str) -> ModuleType:
    """Import a module that comes with `pip install 'leadline[extra]'`; say so when it is missing.

    >>> import_extra("json.decoder", extra="tables").__name__
    'json.decoder'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            expected=f"the packages of the extra {extra!r} to be installed",
            received=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            remedy=f"pip install 'leadline[{extra}]'",
        ) from error
