"""A model without its weights: configuration, processor, names, shapes, on torch's meta device. Seconds for any size.

What loading a folder would refuse is refused here too: weights that are missing, damaged, pickled or outside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clinalign.errors import UsageError
from clinalign.models import load
from clinalign.models.families import FAMILIES, unknown
from clinalign.models.guard import SAFE
from clinalign.models.vlm import VLM

META = {"device_map": "meta"}


@load._bordered
def load_shapes(name: str, *, dtype: str = "float32", processor: str = "", unpacked: bool = False) -> VLM:
    """A `VLM` that makes prompts and knows its parts, but cannot run. `UsageError` for whatever `load_vlm` refuses.

    Weights that only a hub has are fetched, as loading would.
    """
    source = load.source_of(name)
    config = load._config(source)
    family = FAMILIES.get(config.model_type)
    if family is None and unpacked:
        return _unknown(source, name, dtype)
    if family is None or family.check(config):
        return load.load_vlm(name, dtype=dtype, unpacked=unpacked)  # it says why, before it opens a weight
    parts = load._processor(source, family, config, processor)
    model = load._weights(source, family.model_class, load.DTYPES[dtype], META)
    return VLM(model, parts, family=config.model_type, name=name, unpacked=unpacked)


def _unknown(source: str, name: str, dtype: str) -> VLM:
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    config = AutoConfig.from_pretrained(source, **SAFE)
    kind: Any = AutoModelForImageTextToText._model_mapping[type(config)]
    class_name = kind.__name__
    processor: Any = AutoProcessor.from_pretrained(source, backend="pil", **SAFE)
    model = load._weights(source, class_name, load.DTYPES[dtype], META)
    language = next((part for part in ("language_model", "text_model") if hasattr(model.model, part)), "")
    if not language or not getattr(processor, "image_token", None):
        raise UsageError(f"{source}: no decoder under 'model.language_model', or no image token; {unknown.MISSING}")
    functions = unknown.family(class_name, language)
    return VLM(model, processor, family=config.model_type, name=name, functions=functions)


def adapter_size(vlm: VLM, rank: int) -> int:
    """Parameters of a LoRA of this rank on the language model's projections."""
    from clinalign.models.adapter import target_modules

    modules = dict(vlm.model.named_modules())
    wide = (modules[name] for name in target_modules(vlm.model))
    return sum(rank * (module.in_features + module.out_features) for module in wide)


def weights_here(name: str) -> bool:
    """Whether the weights are in a folder of this machine or in the hub's cache."""
    source = load.source_of(name)
    if Path(source).is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(source, file), str) for file in files)
