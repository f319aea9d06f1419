"""Where caches lie that several runs share."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(setting: str = "") -> Path | None:
    """The user's choice, or $CLINALIGN_CACHE, or ~/.cache/clinalign; None for "off"."""
    return None if setting == "off" else shared_folder(setting)


def shared_folder(setting: str = "") -> Path:
    """The same where there is no "off": downloads and the patient key."""
    return Path(setting or os.environ.get("CLINALIGN_CACHE") or Path.home() / ".cache" / "clinalign").expanduser()
