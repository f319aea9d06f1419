"""Examples into a region and corrupted images. Functions are imported on first use, so that recipes load fast."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clinalign.lesions.corruption import corrupt
    from clinalign.lesions.pairs import corrupt_pairs
    from clinalign.lesions.regions import control_region, region_of
    from clinalign.lesions.segment import segmented_regions
    from clinalign.lesions.variants import conditions, example_conditions

__all__ = [
    "conditions",
    "control_region",
    "corrupt",
    "corrupt_pairs",
    "example_conditions",
    "region_of",
    "segmented_regions",
]
_FILES = {
    "conditions": "variants",
    "example_conditions": "variants",
    "control_region": "regions",
    "corrupt": "corruption",
    "corrupt_pairs": "pairs",
    "region_of": "regions",
    "segmented_regions": "segment",
}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f"clinalign.lesions.{_FILES[name]}"), name)
    raise AttributeError(f"module 'clinalign.lesions' has no attribute '{name}'")
