"""A tiny model of any image-text-to-text type of transformers, from its configuration with random weights.

The tokenizer is the embedded model's, with every special token that the type's processor spells out.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from transformers import AutoTokenizer, GenerationConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as TYPES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from clinalign.errors import UsageError
from clinalign.models import VLM, own
from clinalign.models.load import of_any_family, source_of
from clinalign.models.processors import assemble, module_of

from . import sizes

TEMPLATE = (
    "{%- for m in messages -%}{{ m['role'].upper() + ': ' }}{%- for p in m['content'] -%}"
    "{%- if p['type'] == 'image' -%}{{ 'IMAGE\\n' }}{%- else -%}{{ p['text'] + ' ' }}{%- endif -%}"
    "{%- endfor -%}{%- endfor -%}{%- if add_generation_prompt -%}ASSISTANT:{%- endif -%}"
)
USUAL = {"bos_token", "eos_token", "pad_token", "unk_token", "add_bos_token", "add_eos_token", "add_prefix_space"}


def build(kind: str, seed: int = 0) -> VLM:
    """A tiny model of one type with its own processor, by the generic family. Raises whatever the type raises."""
    processor_class = getattr(
        transformers, sizes.PROCESSOR_CLASSES.get(kind) or PROCESSOR_MAPPING_NAMES.get(kind) or "", None
    )
    if processor_class is None:
        raise UsageError("transformers has no processor for it")
    config = CONFIG_MAPPING[kind]()
    if getattr(config, "vision_config", "") is None:
        config = CONFIG_MAPPING[kind](vision_config={})
    tokenizer = _tokenizer(kind, processor_class)
    shrink(config, len(tokenizer), sizes.CONFIG.get(kind, {}))
    processor = _processor(kind, processor_class, config, tokenizer)
    _name_tokens(kind, config, tokenizer, processor)
    torch.manual_seed(seed)
    model_class = getattr(transformers, TYPES[kind])
    kernel = "sdpa" if model_class._supports_sdpa else "eager"
    model = model_class._from_config(config, attn_implementation=kernel).float()
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    _count_tokens(kind, model.eval(), processor)
    model.generation_config = GenerationConfig(**ends, bos_token_id=tokenizer.bos_token_id)
    return of_any_family(spread(model), processor, name=f"tiny-{kind}")


def spread(model: Any) -> Any:
    """Larger random weights, so that differences show, and gates that are open."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "gate" in name and value.ndim <= 1:
                value.fill_(0.5)
            elif value.ndim > 1:
                value.copy_(torch.randn(value.shape, generator=generator) * (1.5 / value.shape[-1] ** 0.5))
    return model


def shrink(config: Any, vocabulary: int, more: dict[str, Any]) -> None:
    """Cuts a configuration to size in place."""
    for part in _parts(config):
        _shrink(part, vocabulary)
    for name, value in more.items():
        *path, last = name.split(".")
        part = config
        for step in path:
            part = getattr(part, step)
        if isinstance(part, dict):
            part[last] = value
        else:
            setattr(part, last, value)


def _parts(config: Any) -> list[Any]:
    below = [v for v in vars(config).values() if isinstance(v, transformers.PretrainedConfig)]
    return [config, *(part for inner in below for part in _parts(inner))]


def _shrink(config: Any, vocabulary: int) -> None:
    had_layers = getattr(config, "num_hidden_layers", None)
    for name, value in list(vars(config).items()):
        if name in sizes.SMALL and isinstance(value, int) and not isinstance(value, bool):
            setattr(config, name, sizes.SMALL[name])
        elif name == "vocab_size" and isinstance(value, int):
            config.vocab_size = vocabulary
        elif name == "image_size" and isinstance(getattr(config, "patch_size", None), int):
            config.image_size = sizes.CELLS * config.patch_size
        elif name == "image_size" and isinstance(getattr(config, "patch_size", None), list | tuple):
            config.image_size = [sizes.CELLS * side for side in config.patch_size]
        elif name.endswith(("layer_types", "indexer_types")) and isinstance(value, list) and value:
            setattr(config, name, _few(value))
        elif isinstance(value, list | tuple) and name.endswith(("indexes", "indices")):
            setattr(config, name, [0])
        elif name in ("pad_token_id", "bos_token_id", "eos_token_id") and value is not None:
            setattr(config, name, 0)
        elif name == "rope_parameters" and isinstance(value, dict):
            _rope(value)
        elif name == "partial_rotary_factor":
            config.partial_rotary_factor = 1.0
    if had_layers and isinstance(getattr(config, "vision_feature_layer", None), int):
        config.vision_feature_layer = -1


def _few(kinds: list[Any]) -> list[Any]:
    """As many layers as are left, one of each kind where there are several."""
    some = list(dict.fromkeys(kinds))
    return (some * sizes.LAYERS)[: sizes.LAYERS]


def _rope(value: dict[str, Any]) -> None:
    nested = [inner for inner in value.values() if isinstance(inner, dict)]
    for inner in nested:
        _rope(inner)
    if not nested:
        value |= {"mrope_section": [2, 1, 1], "partial_rotary_factor": 1.0}


def _tokenizer(kind: str, processor_class: Any) -> Any:
    """The embedded tokenizer with every special token that the processor's module spells out or asks for by name."""
    source = Path(inspect.getfile(module_of(processor_class.__module__))).read_text(encoding="utf-8")
    spelt = set(re.findall(r"[\"'](<[^\"'<>\s{}]+>|\[[A-Z_]+\]|<\|[^\"'\s{}]+\|>|\|[A-Z]+\|)[\"']", source))
    named = set(re.findall(r"tokenizer\.([a-z_]+_token)\b", source))
    named -= USUAL
    extra = {name: f"<{name}>" for name in sorted(named)} | sizes.TOKENS.get(kind, {})
    tokenizer = AutoTokenizer.from_pretrained(source_of("embedded"), extra_special_tokens=extra)
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(spelt - set(extra.values()))}, False)
    tokenizer.chat_template = None
    return tokenizer


def _processor(kind: str, processor_class: Any, config: Any, tokenizer: Any) -> Any:
    names = IMAGE_PROCESSOR_MAPPING_NAMES.get(kind)
    name = sizes.IMAGE_CLASSES.get(kind) or (names.get("pil") if isinstance(names, dict) else None)
    if name is None:
        raise UsageError("its image processor needs torchvision")
    image_class = getattr(transformers, name)
    vision = getattr(config, "vision_config", None) or config
    images = image_class(**_image_settings(image_class, config, vision))
    for name, value in sizes.IMAGES.get(kind, {}).items():
        setattr(images, name, value)
    actual = getattr(module_of(processor_class.__module__), processor_class.__name__)
    takes = inspect.signature(actual.__init__).parameters
    clip = "clip" in str(getattr(vision, "model_type", ""))
    known = {
        "patch_size": _side(vision),
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", "default"),
        "num_additional_image_tokens": int(clip),
        "spatial_merge_size": getattr(config, "spatial_merge_size", 1),
    } | sizes.PROCESSORS.get(kind, {})
    settings = {name: value for name, value in known.items() if name in takes}
    processor = assemble(processor_class, images, tokenizer, settings)
    if not getattr(processor, "image_token", None):
        raise UsageError("its processor has no image token")
    processor.chat_template = TEMPLATE.replace("IMAGE", sizes.FRAMES.get(kind, "{}").format(own.placeholder(processor)))
    return processor


def _side(vision: Any) -> int:
    side = getattr(vision, "patch_size", None) or 16
    return int(side if isinstance(side, int) else side[0])


def _image_settings(image_class: Any, config: Any, vision: Any) -> dict[str, Any]:
    """An image processor's sizes for a tower of `sizes.CELLS` patches a side, or about as many where sizes differ."""
    size = getattr(image_class, "size", None) or {}
    side = getattr(vision, "image_size", None) or sizes.CELLS * _side(vision)
    side = int(side if isinstance(side, int) else side[0])
    found: dict[str, Any] = {}
    if hasattr(image_class, "merge_size") and "shortest_edge" in size:
        merge = getattr(vision, "spatial_merge_size", None) or image_class.merge_size
        cell = _side(vision) * merge
        found = {"patch_size": _side(vision), "merge_size": merge}
        found["size"] = {"shortest_edge": (2 * cell) ** 2, "longest_edge": (4 * cell) ** 2}
    elif "height" in size:
        found["size"] = {"height": side, "width": side}
    elif set(size) == {"shortest_edge"}:
        found["size"] = {"shortest_edge": side}
    elif set(size) == {"shortest_edge", "longest_edge"}:
        found["size"] = {"shortest_edge": side // 2, "longest_edge": side}
    elif set(size) == {"longest_edge"}:
        found["size"] = {"longest_edge": 2 * side}
    if isinstance(getattr(image_class, "patch_size", None), int):
        found["patch_size"] = _side(vision)
    if getattr(image_class, "crop_size", None):
        found["crop_size"] = {"height": side, "width": side}
    if isinstance(getattr(image_class, "max_image_size", None), dict):
        found["max_image_size"] = {"longest_edge": side}
    if isinstance(getattr(image_class, "patch_size", None), dict):
        found["patch_size"] = {"height": _side(vision), "width": _side(vision)}
    if getattr(image_class, "image_grid_pinpoints", None):
        found["image_grid_pinpoints"] = config.image_grid_pinpoints = [
            [side, 2 * side],
            [2 * side, side],
            [2 * side] * 2,
        ]
    return found


def _count_tokens(kind: str, model: Any, processor: Any) -> None:
    """Tells a processor that wants the number of an image's tokens what the tower gives."""
    names = [n for n in ("image_seq_length", "image_seq_len", "num_image_tokens") if hasattr(processor, n)]
    if not names or sizes.PROCESSORS.get(kind, {}).keys() & set(names):
        return
    image = Image.new("RGB", (64, 64))
    given = processor(text=[own.placeholder(processor)], images=[image], return_tensors="pt")
    inner = [m for m in (model, getattr(model, "model", None)) if hasattr(m, "get_image_features")]
    features = inner[0].get_image_features if inner else None
    if features is None:
        return
    takes = inspect.signature(features).parameters
    shown = {n: v for n, v in given.items() if n in takes and n not in ("input_ids", "attention_mask")}
    with torch.no_grad():
        found = features(**shown)
    found = getattr(found, "pooler_output", found)
    count = found[0].shape[0] if found[0].ndim > 1 else len(found)
    for name in names:
        setattr(processor, name, count)


def _name_tokens(kind: str, config: Any, tokenizer: Any, processor: Any) -> None:
    """The ids of the processor's special tokens in a configuration, by their usual names."""
    for name, text in sizes.OTHER_TOKENS.get(kind, {}).items():
        setattr(config, name, int(tokenizer.convert_tokens_to_ids(text)))
    image = sizes.IMAGE_TOKENS.get(kind, processor.image_token)
    for part in _parts(config):
        for name in list(vars(part)):
            if not name.endswith(("_token_id", "_token_index")) or name[:4] in ("pad_", "bos_", "eos_"):
                continue
            token = name.rsplit("_", 1)[0]
            text = image if token == "image_token" else getattr(processor, token, getattr(tokenizer, token, None))
            if isinstance(text, str):
                setattr(part, name, int(tokenizer.convert_tokens_to_ids(text)))
