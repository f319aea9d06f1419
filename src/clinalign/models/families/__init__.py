"""What differs between model families, as plain functions in a dict. Nothing outside `models/` knows a family."""

from __future__ import annotations

from clinalign.models.families import llava, qwen_vl, square
from clinalign.models.families.family import Family

KINDS = (llava.FAMILY, qwen_vl.QWEN2, qwen_vl.QWEN2_5, qwen_vl.QWEN3, square.GEMMA3, square.INTERNVL, square.IDEFICS3)
FAMILIES: dict[str, Family] = {family.name: family for family in KINDS}

__all__ = ["FAMILIES", "Family"]
