"""Vision-language models as the few operations the rest needs. The only package that knows a model family."""

from __future__ import annotations

from clinalign.models.fingerprint import files_hash, model_files
from clinalign.models.load import load_tokenizer, load_vlm
from clinalign.models.vlm import VLM, Generated

__all__ = ["VLM", "Generated", "files_hash", "load_tokenizer", "load_vlm", "model_files"]
