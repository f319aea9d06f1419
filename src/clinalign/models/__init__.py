"""Vision-language models as the few operations the rest needs. The only room that knows a model family."""

from __future__ import annotations

from clinalign.models.load import fingerprint, load_tokenizer, load_vlm
from clinalign.models.vlm import VLM, Generated

__all__ = ["VLM", "Generated", "fingerprint", "load_tokenizer", "load_vlm"]
