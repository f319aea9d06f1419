"""Windows: which range of stored values becomes black to white."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clinalign.errors import UsageError, nearest
from clinalign.imaging.images import Pixels


@dataclass(frozen=True, slots=True)
class Window:
    """`center` and `width` in the units after rescaling (HU in CT); `shape` as in DICOM's VOI LUT Function."""

    name: str
    center: float
    width: float
    shape: str = "LINEAR"

    def as_dict(self) -> dict[str, Any]:
        """For `meta`: rounded, so that a table does not depend on the last bit."""
        return asdict(self) | {"center": round(self.center, 3), "width": round(self.width, 3)}


WINDOWS = {
    "lung": Window("lung", -600.0, 1500.0),
    "chest": Window("chest", -400.0, 1600.0),
    "soft": Window("soft", 40.0, 400.0),
    "bone": Window("bone", 400.0, 1800.0),
    "brain": Window("brain", 40.0, 80.0),
    "liver": Window("liver", 60.0, 160.0),
}


def parse_window(text: str) -> list[Window]:
    """One window, or three joined by '+' (as red, green and blue): a name of `WINDOWS`, or low/high such as -1200/400.

    Raises `UsageError` for anything else.
    """
    parts = text.split("+")
    if len(parts) not in (1, 3):
        raise UsageError(f"data.window: '{text}' joins {len(parts)} windows; use one, or three as colour channels")
    return [_one(part.strip()) for part in parts]


def _one(text: str) -> Window:
    if text in WINDOWS:
        return WINDOWS[text]
    low, slash, high = text.partition("/")
    try:
        bottom, top = float(low), float(high)
    except ValueError:
        known = ", ".join(["auto", "file:N", *WINDOWS])
        raise UsageError(f"data.window: '{text}' is none of {known} or low/high{nearest(text, WINDOWS)}") from None
    if not bottom < top:
        raise UsageError(f"data.window: '{text}' is empty; low/high needs low below high")
    return Window(f"{low}/{high}", (bottom + top) / 2, top - bottom, "LINEAR_EXACT")


def apply_window(values: npt.NDArray[Any], window: Window) -> Pixels:
    """Values [H, W] to uint8 by DICOM PS3.3 C.11.2.1.2 (LINEAR) and C.11.2.1.3 (LINEAR_EXACT, SIGMOID).

    LINEAR with a width of 1 or less has no slope and is a threshold at the center.
    """
    values = np.asarray(values, dtype=np.float64)
    if window.shape == "SIGMOID":
        shown = 255.0 / (1 + np.exp(np.clip(-4 * (values - window.center) / window.width, -700, 700)))
    elif window.shape == "LINEAR_EXACT":
        shown = ((values - window.center) / window.width + 0.5) * 255
    elif window.width <= 1:
        shown = np.where(values > window.center - 0.5, 255.0, 0.0)
    else:
        shown = ((values - (window.center - 0.5)) / (window.width - 1) + 0.5) * 255
    return np.round(np.clip(shown, 0, 255)).astype(np.uint8)
