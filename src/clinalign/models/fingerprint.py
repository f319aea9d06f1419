"""What a model's numbers depend on, as hashes: weights, configuration, processor, files.

Whatever is kept of a model's outputs (journal rows, adapters, cached features, a teacher's maps) is kept under these.
A configuration counts by itself: rope, a norm's epsilon, the activation or the vision layer that is read are in no
weight, and in bfloat16 a changed one can pass a comparison of outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clinalign.models.guard import EMBEDDED, source_of
from clinalign.storage import file_hash, key_of

if TYPE_CHECKING:
    from clinalign.models.vlm import VLM

NAMES_ONLY = {
    "_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "id2label", "label2id",
    "problem_type", "output_hidden_states", "output_attentions", "return_dict", "use_cache", "initializer_range",
    "initializer_factor",
}  # fmt: skip
"""Settings of a configuration that change no output, or (`dtype`) are hashed with the weights. All others count."""

OF_ADAPTERS = ("base_model_name_or_path", "auto_mapping", "inference_mode")
"""The same of an adapter's configuration."""

FILES = (".json", ".safetensors", ".jinja", ".model", ".txt")


def fingerprint(vlm: VLM) -> str:
    """Hash of all that a model's outputs depend on, as it is now: with its adapter and W, whatever files it came from.

    Weights are read through once: about a second for each two gigabytes.
    """
    adapter = vlm.peft.peft_config["default"].to_dict() if vlm.peft is not None else {}
    adapter = {name: value for name, value in adapter.items() if name not in OF_ADAPTERS}
    projection = vlm.projection.epsilon if vlm.projection is not None else None
    generation = vlm.model.generation_config.to_dict()
    return key_of(
        {
            "family": vlm.family.name,
            "weights": weights_hash(vlm),
            "configuration": configuration_hash(vlm.model.config),
            "generation": _settings(generation),
            "processor": processor_hash(vlm),
            "adapter": _settings(adapter),
            "projection": projection,
        }
    )


def weights_hash(vlm: VLM) -> str:
    """Hash of every weight and buffer that a checkpoint holds, an adapter's and W's included."""
    named = list(vlm.model.state_dict().items())
    named += (
        [(f"projection.{name}", value) for name, value in vlm.projection.named_parameters()]
        if vlm.projection is not None
        else []
    )
    return hash_tensors(named)


def configuration_hash(config: Any) -> str:
    """Hash of a Hugging Face configuration: everything in it but names and what only concerns training or printing."""
    return key_of(_settings(config.to_dict()))


def processor_hash(vlm: VLM) -> str:
    """Hash of how text and images become numbers: image processor, tokenizer, chat template, counts of image tokens."""
    processor = vlm.processor
    rest = processor.to_dict() if hasattr(processor, "to_dict") else vars(processor)
    plain = {name: value for name, value in rest.items() if isinstance(value, bool | int | float | str | tuple)}
    return key_of(
        [
            processor.image_processor.to_json_string(),
            str(processor.chat_template),
            vlm.tokenizer.backend_tokenizer.to_str(),
            plain,
        ]
    )


def files_hash(name_or_folder: str) -> str:
    """Hash of the files of a model's or an adapter's folder, without loading them; "" for "".

    Of a model that only a hub knows the commit stands for its files (its `config.json` is fetched to learn it).
    """
    if not name_or_folder:
        return ""
    files = [[path.name, file_hash(path)] for path in model_files(name_or_folder)]
    return key_of([name_or_folder, files or _commit(name_or_folder)])


def model_files(name_or_folder: str) -> list[Path]:
    """The files that make a model what it is; empty for one that only a hub knows."""
    folder = Path(source_of(name_or_folder) if name_or_folder in EMBEDDED else name_or_folder).expanduser()
    return [path for path in sorted(folder.glob("*")) if path.suffix in FILES]


@cache
def _commit(name: str) -> str:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "config.json")).parent.name
    except (OSError, ValueError):  # not there: loading the model will say so
        return ""


def hash_tensors(named: Iterable[tuple[str, Tensor]], extra: str = "") -> str:
    """sha256 over names, shapes, types and bytes."""
    digest = hashlib.sha256(extra.encode())
    for name, value in named:
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _settings(value: Any) -> Any:
    """Plain values, names left out; sets in order, anything else by its text."""
    if isinstance(value, dict):
        return {str(key): _settings(inner) for key, inner in value.items() if key not in NAMES_ONLY}
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [_settings(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
