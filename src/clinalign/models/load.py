"""From a folder or a hub name to a `VLM`. Weights are safetensors only, and no code from the folder is run."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from importlib.resources import files
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

from clinalign.errors import RowError, UsageError, nearest
from clinalign.models import efficientnet
from clinalign.models.families import FAMILIES, Family, unknown
from clinalign.models.guard import SAFE, check_folder
from clinalign.models.vlm import VLM

P = ParamSpec("P")
T = TypeVar("T")
EMBEDDED = "embedded"
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
WHOLE = ["lm_head", "vision_tower", "visual", "vision_model", "multi_modal_projector", "connector"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def _bordered(load: Callable[P, T]) -> Callable[P, T]:
    """Any error of a model folder as a `UsageError`. A loaded model is tried once, so that a broken chat template or
    processor shows here and not after hours."""

    @wraps(load)
    def loaded(*given: P.args, **named: P.kwargs) -> T:
        try:
            model = load(*given, **named)
            if isinstance(model, VLM):
                with suppress(RowError):  # a picture that this processor does not take
                    model.prompt_ids("?", [np.zeros((224, 224, 3), np.uint8)])
            return model
        except UsageError:
            raise
        except Exception as error:  # transformers, tokenizers and Jinja each raise their own
            name = given[0] if given else named.get("name_or_folder")
            detail = f"{type(error).__name__}: {_first_line(error)}"
            raise UsageError(f"{name}: no usable model ({detail}); download it again") from error

    return loaded


@_bordered
def load_vlm(
    name_or_folder: str,
    *,
    adapter: Path | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    processor: str = "",
    quantize: str = "none",
    unpacked: bool = False,
) -> VLM:
    """Loads a model, frozen and in eval mode; "embedded" is the small one that comes with the package.

    `adapter` is a folder written by PEFT. `processor`: where the image processor comes from, and the tokenizer if the
    model has none; empty: the model itself. `quantize="4bit"`: the language model's weights in NF4 (bitsandbytes).
    `unpacked`: every answer is scored in a plain pass of its own, and a family that is not known is run by its own
    processor and forward instead of being refused.
    Raises `UsageError` when the folder is no model, its family is unknown, a weight is missing, its files are damaged,
    or what `quantize` needs is not installed.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype '{dtype}' is unknown; use one of {', '.join(DTYPES)}{nearest(dtype, DTYPES)}")
    source = source_of(str(name_or_folder))
    config = _config(source)
    family = FAMILIES.get(config.model_type)
    if family is None and unpacked:
        return _unknown(source, str(name_or_folder), adapter, DTYPES[dtype], device)
    if family is None:
        raise UsageError(
            f"{source}: model family '{config.model_type}' is not supported (known: {', '.join(FAMILIES)}); write its "
            f"functions in models/families/ (see family.py: grid, token_count, encode, place, positions), or run it by "
            f"separate passes, slowly, with unpacked=true"
        )
    problem = family.check(config)
    if problem:
        raise UsageError(f"{source}: {problem}")
    parts = _processor(source, family, config, processor)
    model = _weights(source, family.model_class, DTYPES[dtype], _quantization(quantize, DTYPES[dtype], device))
    vlm = VLM(
        model.to(device) if quantize == "none" else model,
        parts,
        family=config.model_type,
        name=str(name_or_folder),
        unpacked=unpacked,
    )
    if adapter is not None:
        vlm.load_adapter(Path(adapter))
    return vlm


def _unknown(source: str, name: str, adapter: Path | None, dtype: torch.dtype, device: str) -> VLM:
    """A model of a family nobody wrote functions for, with its own processor; see `families/unknown.py`."""
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    try:
        config = AutoConfig.from_pretrained(source, **SAFE)
        kind: Any = AutoModelForImageTextToText._model_mapping[type(config)]
        class_name = kind.__name__
        processor = AutoProcessor.from_pretrained(source, backend="pil", **SAFE)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UsageError(f"{source}: transformers itself cannot load it: {_first_line(error)}") from error
    model = _weights(source, class_name, dtype, {})
    inner = getattr(model, "model", None)
    language = next((part for part in ("language_model", "text_model") if hasattr(inner, part)), "")
    if not language or not getattr(processor, "image_token", None):
        raise UsageError(f"{source}: no decoder under 'model.language_model', or no image token; {unknown.MISSING}")
    functions = unknown.family(class_name, language)
    vlm = VLM(model.to(device), processor, family=config.model_type, name=name, functions=functions)
    if adapter is not None:
        vlm.load_adapter(Path(adapter))
    return vlm


@_bordered
def load_tokenizer(name_or_folder: str, processor: str = "") -> Any:
    """The model's tokenizer without its weights; that of `processor` where the model has none."""
    from transformers import AutoTokenizer
    from transformers.processing_utils import ProcessorMixin

    source = source_of(str(name_or_folder))
    if processor and not _has_tokenizer(source):
        source = source_of(processor)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **SAFE)
        if tokenizer.chat_template is None and _has_processor(source):  # older folders keep it with the processor
            tokenizer.chat_template = ProcessorMixin.get_processor_dict(source)[0].get("chat_template")
        return tokenizer
    except (OSError, ValueError) as error:
        raise UsageError(f"{source}: cannot load the tokenizer: {_first_line(error)}") from error


def source_of(name: str) -> str:
    """The folder of "embedded", of a path, or the name itself where only a hub knows it. `UsageError` otherwise."""
    if name == EMBEDDED:
        folder = Path(str(files("clinalign.models") / EMBEDDED))
        if not (folder / "config.json").is_file():
            raise UsageError(
                f"{folder}: the embedded model is not in this installation; run `make embedded`, or reinstall"
            )
        return str(folder)
    path = Path(name).expanduser()
    if path.exists() and not (path / "config.json").is_file():
        raise UsageError(f"{path}: no model here (config.json is missing); give a folder saved with save_pretrained")
    if not path.exists() and (path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise UsageError(f"{path}: no such model folder; check the path")
    return str(path) if path.exists() else name


def _config(source: str) -> Any:
    """The configuration. An unknown `model_type` still yields an object that names it."""
    from transformers import AutoConfig, PretrainedConfig

    path = Path(source) / "config.json"
    if path.is_file():
        try:
            kind = json.loads(path.read_text(encoding="utf-8")).get("model_type", "")
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
            raise UsageError(f"{path}: not a model configuration ({error}); download the model again") from error
        if kind not in FAMILIES:
            return type("UnknownConfig", (PretrainedConfig,), {"model_type": kind})()
    efficientnet.register()
    try:
        return AutoConfig.from_pretrained(source, **SAFE)
    except (OSError, ValueError) as error:
        raise UsageError(f"{source}: cannot read the model's configuration: {_first_line(error)}") from error


def _has_processor(source: str) -> bool:
    return any((Path(source) / name).is_file() for name in PROCESSOR_FILES)


def _has_tokenizer(source: str) -> bool:
    folder = Path(source)
    return not folder.is_dir() or any((folder / name).is_file() for name in TOKENIZER_FILES)


def _processor(source: str, family: Family, config: Any, other: str) -> Any:
    """Built from its parts: the image processor's PIL form (the same numbers on every machine), and the tokenizer."""
    from transformers import AutoImageProcessor, AutoTokenizer
    from transformers.processing_utils import ProcessorMixin

    place = source_of(other) if other else source
    folder = Path(place)
    if folder.is_dir() and not _has_processor(place):
        raise UsageError(
            f"{place}: ships no image processor ({' or '.join(PROCESSOR_FILES)}); name the model it was trained from "
            f"with processor=, for example processor=Qwen/Qwen2.5-VL-7B-Instruct"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(source if _has_tokenizer(source) else place, **SAFE)
        images = AutoImageProcessor.from_pretrained(place, backend="pil", **SAFE)
        settings, _ = ProcessorMixin.get_processor_dict(place)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"{place}: cannot load tokenizer and image processor: {_first_line(error)}") from error
    parts = ("image_processor", "tokenizer", "video_processor", "processor_class", "auto_map")
    settings = {key: value for key, value in settings.items() if key not in parts}
    settings.setdefault("chat_template", tokenizer.chat_template)
    processor = family.build_processor(images, tokenizer, settings, config)
    if not processor.chat_template:
        raise UsageError(f"{source}: the model has no chat template; add chat_template.jinja to its folder")
    return processor


def _quantization(name: str, dtype: torch.dtype, device: str) -> dict[str, Any]:
    """Further arguments of `from_pretrained`. The vision tower, the projector and the head stay as they are."""
    if name == "none":
        return {}
    if name != "4bit":
        raise UsageError(f"quantize '{name}' is unknown; use none or 4bit")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError("quantize=4bit needs bitsandbytes; install it with: pip install 'clinalign[quantize]'")
    if not device.startswith("cuda"):
        raise UsageError("quantize=4bit needs a GPU: on a CPU bitsandbytes passes no gradient on; leave it at none")
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=WHOLE,
    )
    return {"quantization_config": settings, "device_map": {"": device}}


def _weights(source: str, class_name: str, dtype: torch.dtype, more: dict[str, Any]) -> Any:
    import transformers
    from safetensors import SafetensorError
    from transformers.utils import logging

    check_folder(source)
    cls = getattr(transformers, class_name)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model, info = cls.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            attn_implementation="sdpa",
            **SAFE,
            **more,
        )
    except ImportError as error:  # a quantised checkpoint asks for its library
        raise UsageError(f"{source}: cannot load the weights: {_first_line(error)}") from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UsageError(
            f"{source}: cannot load the weights: {_first_line(error)}; download the model again"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    missing = sorted(info["missing_keys"])
    if missing:
        raise UsageError(
            f"{source}: {len(missing)} weights are missing, first '{missing[0]}'; download the model again"
        )
    return model


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
