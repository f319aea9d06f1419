"""Processors from a model's folder, part by part, the same with and without torchvision.

Image processors are always their PIL form, so numbers do not depend on what else is installed. Video processors, which
need torchvision, are left out: videos are not used.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clinalign.errors import UsageError, first_line
from clinalign.models.families import Family
from clinalign.models.guard import SAFE

FILES = ("preprocessor_config.json", "processor_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


class Absent(dict[str, Any]):
    """Stands where a processor wants a part for something else than text and images; nothing is saved of it."""

    _auto_class = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return "" if name == "font" else None  # the one that a processor takes for a path when it is saved


def has_processor(place: str) -> bool:
    """Whether a folder holds an image processor."""
    return any((Path(place) / name).is_file() for name in FILES)


def has_tokenizer(place: str) -> bool:
    """Whether a folder, or whatever only a hub knows, holds a tokenizer."""
    folder = Path(place)
    return not folder.is_dir() or any((folder / name).is_file() for name in TOKENIZER_FILES)


def parts(source: str, place: str) -> tuple[Any, Any, dict[str, Any]]:
    """Image processor, tokenizer and the processor's other settings; the tokenizer is the model's own (`source`) where
    it has one, the rest comes from `place`. `UsageError` where any is missing or damaged."""
    from transformers import AutoImageProcessor, AutoTokenizer
    from transformers.processing_utils import ProcessorMixin

    if Path(place).is_dir() and not has_processor(place):
        raise UsageError(
            f"{place}: ships no image processor ({' or '.join(FILES)}); name the model it was trained from "
            f"with processor=, for example processor=Qwen/Qwen2.5-VL-7B-Instruct"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(source if has_tokenizer(source) else place, **SAFE)
        images = AutoImageProcessor.from_pretrained(place, backend="pil", **SAFE)
        settings, _ = ProcessorMixin.get_processor_dict(place)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"{place}: cannot load tokenizer and image processor: {first_line(error)}") from error
    settings.setdefault("chat_template", tokenizer.chat_template)
    return images, tokenizer, settings


def of_family(source: str, place: str, family: Family, config: Any) -> Any:
    """The processor of a family that is written down."""
    images, tokenizer, settings = parts(source, place)
    names = ("image_processor", "tokenizer", "video_processor", "processor_class", "auto_map")
    settings = {key: value for key, value in settings.items() if key not in names}
    return checked(source, family.build_processor(images, tokenizer, settings, config))


def of_transformers(source: str, place: str, model_type: str) -> Any:
    """The processor class that transformers has for a model."""
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    images, tokenizer, settings = parts(source, place)
    name = settings.get("processor_class") or PROCESSOR_MAPPING_NAMES.get(model_type)
    kind = getattr(transformers, name or "", None)
    if kind is None:
        raise UsageError(f"{source}: transformers has no processor for a {model_type} model ({name})")
    return checked(source, assemble(kind, images, tokenizer, settings))


def assemble(kind: Any, images: Any, tokenizer: Any, settings: dict[str, Any]) -> Any:
    """A transformers processor of image processor and tokenizer; what else it wants is left out."""
    given = {"image_processor": images, "tokenizer": tokenizer}
    module = module_of(kind.__module__)
    with _without_video_words(module):
        return _assembled(getattr(module, kind.__name__), given, settings)


def module_of(name: str) -> Any:
    """A processor's module. Some import their image processor's torchvision form for a function that its PIL form has
    too: without torchvision that one stands in."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        there = name.replace(".processing_", ".image_processing_")
        sys.modules[there] = importlib.import_module(name.replace(".processing_", ".image_processing_pil_"))
        try:
            return importlib.import_module(name)
        finally:
            del sys.modules[there]


@contextmanager
def _without_video_words(module: Any) -> Iterator[None]:
    """SmolVLM's processor refuses to be built without a package that spells numbers in a video's prompt."""
    missing = getattr(module, "num2words", module) is None
    if missing:
        module.num2words = str
    try:
        yield
    finally:
        if missing:
            module.num2words = None


def _assembled(kind: Any, given: dict[str, Any], settings: dict[str, Any]) -> Any:
    lenient = type(kind.__name__, (kind,), {"check_argument_for_proper_class": lambda self, name, part: type(part)})
    built: Any = lenient
    attributes = built.get_attributes()
    settings = {key: value for key, value in settings.items() if key not in attributes}
    processor = built.from_args_and_dict([given.get(name, Absent()) for name in attributes], settings)
    processor.chat_template = processor.chat_template or settings.get("chat_template")
    return processor


def checked(source: str, processor: Any) -> Any:
    """The same processor; `UsageError` where it has no chat template."""
    if not processor.chat_template:
        raise UsageError(f"{source}: the model has no chat template; add chat_template.jinja to its folder")
    return processor
