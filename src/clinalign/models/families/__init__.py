"""What differs between model families, as plain functions in a dict. Nothing outside `models/` knows a family."""

from __future__ import annotations

from clinalign.models.families import gemma, idefics, internvl, llava, qwen_vl
from clinalign.models.families.family import Family

FAMILIES: dict[str, Family] = {
    "llava": llava.FAMILY,
    "qwen2_vl": qwen_vl.QWEN2,
    "qwen2_5_vl": qwen_vl.QWEN2_5,
    "qwen3_vl": qwen_vl.QWEN3,
    "gemma3": gemma.FAMILY,
    "internvl": internvl.FAMILY,
    "idefics3": idefics.FAMILY,
}

__all__ = ["FAMILIES", "Family"]
