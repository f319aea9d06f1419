"""What differs between model families, as plain functions in a dict. Nothing outside `models/` knows a family."""

from __future__ import annotations

from clinalign.models.families import gemma, idefics, internvl, llava, qwen_vl
from clinalign.models.families.family import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        llava.FAMILY,
        qwen_vl.QWEN2,
        qwen_vl.QWEN2_5,
        qwen_vl.QWEN3,
        gemma.FAMILY,
        internvl.FAMILY,
        idefics.FAMILY,
    )
}

__all__ = ["FAMILIES", "Family"]
