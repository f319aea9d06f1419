"""A choice by name: an entry of one of this package's tables, or `module:name`, code of the user's own.

An own loss or decoder is one file that Python finds (its folder on PYTHONPATH) and is named where an entry of the table
would be: `align.method=my_losses:ipo`. It is imported when it is first needed, not when a recipe is read.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path
from typing import Any

from clinalign.errors import UsageError, first_line, nearest

PATH = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Choice:
    """Annotation of a text option of which `table` holds the names that are known; `module:name` is as good."""

    what: str
    table: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def check(self, name: str) -> str:
        """The name. `ValueError` where it is none."""
        if name in self.table or PATH.fullmatch(name):
            return name
        known = ", ".join(self.table)
        raise ValueError(f"no {self.what} '{name}'{nearest(name, self.table)} (known: {known}; your own: module:name)")


def is_own(name: str) -> bool:
    """Whether a name is `module:name`."""
    return PATH.fullmatch(name) is not None


def load(name: str, what: str) -> Any:
    """What `module:name` names. `UsageError` where the module cannot be imported or has no such name."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except AttributeError as error:
        if module not in sys.modules:
            raise UsageError(f"{what} '{name}': importing {module} fails: {first_line(error)}") from error
        raise UsageError(f"{what} '{name}': {module} has no '{attribute}'; name what the file defines") from error
    except ModuleNotFoundError as error:
        remedy = "put its folder on PYTHONPATH" if error.name == module.split(".")[0] else "install what it imports"
        raise UsageError(f"{what} '{name}': {first_line(error)}; {remedy}") from error
    except Exception as error:  # a module's own code raises what it likes
        raise UsageError(f"{what} '{name}': importing {module} fails: {first_line(error)}") from error


def code_of(name: str) -> Path | None:
    """The file that `module:name` is in, found without running it (packages above it are imported); None where the
    name is none or there is no such file."""
    if not is_own(name):
        return None
    try:
        found = util.find_spec(name.partition(":")[0])
    except (ImportError, ValueError):
        return None
    return Path(found.origin) if found is not None and found.origin and os.path.isfile(found.origin) else None
