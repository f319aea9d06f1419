"""From a folder or a hub name to a `VLM`. Weights are safetensors only, and no code from the folder is run."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

from clinalign.errors import RowError, UsageError, first_line, nearest
from clinalign.models import efficientnet, processors
from clinalign.models.adapter import IMAGE_WEIGHTS
from clinalign.models.families import FAMILIES, Family, generic
from clinalign.models.families.tiles import LAYOUTS
from clinalign.models.guard import SAFE, check_folder, source_of
from clinalign.models.vlm import VLM

P = ParamSpec("P")
T = TypeVar("T")
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
            detail = f"{type(error).__name__}: {first_line(error)}"
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
    tiles: bool = False,
) -> VLM:
    """Loads a model, frozen and in eval mode; "embedded" and "embedded2" are the small ones that come with the package.

    `adapter` is a folder written by PEFT. `processor`: where the image processor comes from, and the tokenizer if the
    model has none; empty: the model itself. `quantize="4bit"`: the language model's weights in NF4 (bitsandbytes).
    Answers are packed where that is proved equal to the model's own forward (`models/proof.py`), and else scored in
    plain passes of it, which is said in one line; `unpacked` asks for plain passes, and of a family that is not written
    down for nothing but its own forward. `tiles`: Gemma 3, InternVL and Idefics3 see an image cut as their own
    processor cuts it, and not as one tile (every other family that cuts always does).
    Raises `UsageError` when the folder is no model, transformers cannot load it, a weight is missing, its files are
    damaged, neither way gives the model's own numbers, or what `quantize` needs is not installed.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype '{dtype}' is unknown; use one of {', '.join(DTYPES)}{nearest(dtype, DTYPES)}")
    from clinalign.models.proof import prove

    source = source_of(str(name_or_folder))
    config = _config(source)
    family = _family(config, tiles, str(name_or_folder))
    quantization = _quantization(quantize, DTYPES[dtype], device)
    if family is None:
        vlm = _generic(source, str(name_or_folder), DTYPES[dtype], device, quantization, processor, unpacked)
    else:
        parts = processors.of_family(source, source_of(processor) if processor else source, family, config)
        model = _weights(source, family.model_class, DTYPES[dtype], quantization)
        vlm = VLM(
            model if quantization else model.to(device),
            parts,
            family=family,
            name=str(name_or_folder),
            unpacked=unpacked,
        )
    prove(vlm, str(name_or_folder), processor, [dtype, quantize, device, unpacked, tiles])
    if adapter is not None:
        vlm.load_adapter(Path(adapter))
    return vlm


def _family(config: Any, tiles: bool, name: str) -> Family | None:
    """The functions that are written down for a configuration; None: those of any family."""
    family = FAMILIES.get(config.model_type)
    if family is None or family.check(config):  # a tower or a text that its functions do not know
        return None
    if not tiles:
        return family
    if config.model_type not in LAYOUTS:
        raise UsageError(f"{name}: a {config.model_type} model's processor cuts no image into tiles; leave tiles out")
    return None


def _generic(
    source: str, name: str, dtype: torch.dtype, device: str, quantization: dict[str, Any], other: str, unpacked: bool
) -> VLM:
    """A model of a family nobody wrote functions for; see `families/generic.py`."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(source, **SAFE)
        kind: Any = AutoModelForImageTextToText._model_mapping[type(config)]
    except KeyError as error:
        raise UsageError(
            f"{source}: model family '{config.model_type}' is not supported: transformers has no image-text-to-text "
            f"model of it (docs/models.md lists those that work)"
        ) from error
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"{source}: transformers itself cannot load it: {first_line(error)}") from error
    processor = processors.of_transformers(source, source_of(other) if other else source, config.model_type)
    model = _weights(source, kind.__name__, dtype, quantization)
    return of_any_family(model if quantization else model.to(device), processor, name=name, unpacked=unpacked)


def of_any_family(model: Any, processor: Any, *, name: str = "", unpacked: bool = False) -> VLM:
    """A loaded model with its own processor, whatever its family: by what transformers tells of its insides where that
    is enough, else by its own forward alone. Whether it may stay packed is for `proof.settle` to say."""
    why = "unpacked=true asks for it"
    image_token_id = _image_token_id(model.config, processor)
    if not unpacked:
        try:
            return VLM(model, processor, family=generic.family(model, processor, image_token_id), name=name)
        except generic.Unusual as error:
            why = str(error)
        except Exception as error:  # whatever a forward of an unusual form raises
            why = f"its insides are of an unusual form ({first_line(error)})"
    family = generic.family(model, processor, image_token_id, known=False)
    return VLM(model, processor, family=family, name=name, not_packed=why)


def by_transformers_alone(source: str, other: str, *, dtype: str, device: str, adapters: Sequence[Path] = ()) -> VLM:
    """A model as transformers and PEFT load it, by its own processor, forward and generation; nothing of its family is
    used. `adapters` are merged by PEFT, all but the last. `UsageError` where one is no plain PEFT adapter."""
    from peft import PeftModel

    from clinalign.models.proof import settle

    vlm = _generic(source, source, DTYPES[dtype], device, {}, other, True)
    settle(vlm)
    for path in adapters:
        more = any((path / name).is_file() for name in ("projection.safetensors", IMAGE_WEIGHTS))
        if not (path / "adapter_config.json").is_file() or more:
            raise UsageError(
                f"{path}: PEFT alone cannot load it (fully trained weights, a projector or tower that trained, or a "
                "projection of image tokens)"
            )
        if vlm.peft is not None:
            vlm.merge_adapter()
        vlm.peft = PeftModel.from_pretrained(vlm.model, str(path))
    vlm.model.eval()
    return vlm


def _image_token_id(config: Any, processor: Any) -> int:
    known = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
    token = getattr(processor, "image_token", None)
    if known is None and token is None:
        raise UsageError(f"a {config.model_type} model has no image token: its images are no part of the prompt")
    return int(known if known is not None else processor.tokenizer.convert_tokens_to_ids(token))


@_bordered
def load_tokenizer(name_or_folder: str, processor: str = "") -> Any:
    """The model's tokenizer without its weights; that of `processor` where the model has none."""
    from transformers import AutoTokenizer
    from transformers.processing_utils import ProcessorMixin

    source = source_of(str(name_or_folder))
    if processor and not processors.has_tokenizer(source):
        source = source_of(processor)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **SAFE)
        if tokenizer.chat_template is None and processors.has_processor(
            source
        ):  # older folders keep it with the processor
            tokenizer.chat_template = ProcessorMixin.get_processor_dict(source)[0].get("chat_template")
        return tokenizer
    except (OSError, ValueError) as error:
        raise UsageError(f"{source}: cannot load the tokenizer: {first_line(error)}") from error


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
        raise UsageError(f"{source}: cannot read the model's configuration: {first_line(error)}") from error


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


def _weights(source: str, class_name: str, dtype: torch.dtype, kwargs: dict[str, Any]) -> Any:
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
            attn_implementation="sdpa" if cls._supports_sdpa else "eager",
            **SAFE,
            **kwargs,
        )
    except ImportError as error:  # a quantised checkpoint asks for its library
        raise UsageError(f"{source}: cannot load the weights: {first_line(error)}") from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UsageError(f"{source}: cannot load the weights: {first_line(error)}; download the model again") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    missing = sorted(info["missing_keys"])
    if missing:
        raise UsageError(
            f"{source}: {len(missing)} weights are missing, first '{missing[0]}'; download the model again"
        )
    return model


META = {"device_map": "meta"}


@_bordered
def load_shapes(
    name: str, *, dtype: str = "float32", processor: str = "", unpacked: bool = False, tiles: bool = False
) -> VLM:
    """A `VLM` that makes prompts and knows its parts, but cannot run. `UsageError` for whatever `load_vlm` refuses
    before it runs the model; whether its answers may be packed is proved only when it is loaded.

    Weights that only a hub has are fetched, as loading would.
    """
    source = source_of(name)
    config = _config(source)
    family = _family(config, tiles, name)
    if family is None:
        vlm = _generic(source, name, DTYPES[dtype], "meta", META, processor, True)
        vlm.undecided = not unpacked
        return vlm
    parts = processors.of_family(source, source_of(processor) if processor else source, family, config)
    model = _weights(source, family.model_class, DTYPES[dtype], META)
    return VLM(model, parts, family=family, name=name, unpacked=unpacked)


def adapter_size(vlm: VLM, rank: int) -> int:
    """Parameters of a LoRA of this rank on the language model's projections."""
    from clinalign.models.adapter import target_modules

    modules = dict(vlm.model.named_modules())
    wide = (modules[name] for name in target_modules(vlm.model, vlm.family.language))
    return sum(rank * (module.in_features + module.out_features) for module in wide)
