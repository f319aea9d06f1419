"""Every key of a recipe with type, default and meaning: for `clinalign options`, docs/options.md and error messages."""

from __future__ import annotations

import shutil
import textwrap
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from clinalign.errors import UsageError, nearest
from clinalign.extensions import Choice

PEERS = {
    "learning_rate": "align.lr",
    "batch_size": "align.batch",
    "train_batch_size": "align.batch",
    "per_device_train_batch_size": "align.micro_batch (pairs in memory at once) of align.batch (pairs a step)",
    "gradient_accumulation_steps": "align.batch divided by align.micro_batch",
    "num_train_epochs": "align.epochs",
    "num_epochs": "align.epochs",
    "warmup_ratio": "align.warmup_ratio",
    "lr_scheduler_type": "align.schedule",
    "max_seq_length": "align.max_length",
    "cutoff_len": "align.max_length",
    "logging_steps": "align.log_every",
    "save_steps": "align.checkpoint_every",
    "loss_type": "align.method",
    "pref_loss": "align.method",
    "pref_beta": "align.beta",
    "beta": "align.beta",
    "finetuning_type": "align.tune",
    "lora_r": "align.lora.r",
    "lora_rank": "align.lora.r",
    "rank": "align.lora.r",
    "lora_alpha": "align.lora.alpha",
    "lora_dropout": "align.lora.dropout",
    "use_rslora": "align.lora.rslora",
    "rpo_alpha": "align.nll",
    "model_name_or_path": "model",
    "model_name": "model",
    "torch_dtype": "dtype",
    "fp16": "dtype=bfloat16 (training in float16 is refused)",
    "load_in_4bit": "quantize=4bit",
    "quantization_bit": "quantize=4bit",
    "dataset": "data.path",
    "dataset_name": "data.source=hub with data.path",
    "image_folder": "data.images",
    "media_dir": "data.images",
    "max_samples": "data.limit",
    "per_device_eval_batch_size": "evaluate.batch_size",
    "max_new_tokens": "answer.max_new_tokens and evaluate.max_new_tokens",
    "output_dir": "--out",
    "resume_from_checkpoint": "--resume",
    "device_map": "device",
    "optim": "AdamW, always (align.lr, align.weight_decay)",
}
"""What TRL, transformers, PEFT and LLaMA-Factory call a setting, and where it is here."""


@dataclass(frozen=True, slots=True)
class Option:
    """One key: `key.key`, its type with the values or borders that hold, its default, and what it means with unit."""

    key: str
    kind: str
    default: str
    meaning: str


def every_option(kind: type[BaseModel], prefix: str = "") -> Iterator[Option]:
    """All keys of a recipe (or of a group of it), depth first, in the order of its fields."""
    for name, field in kind.model_fields.items():
        key = f"{prefix}{name}"
        groups = _groups(field.annotation) if key != "warmup" else []  # the keys of `align` once more
        yield Option(key, _kind(field), _default(field), " ".join((field.description or "").split()))
        for group in groups:
            below = f"{key}." if len(groups) == 1 else f"{key} ({group.model_fields['name'].default})."
            yield from (option for option in every_option(group, below) if not option.key.endswith(").name"))


def siblings(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Keys of the group at a path; a decoder's path has its name after `decoder`. Empty where no group is there."""
    for name in path:
        field = kind.model_fields.get(name)
        groups = _groups(field.annotation) if field else []
        if not groups and name in {str(one.model_fields["name"].default) for one in _tagged(kind)}:
            continue
        if len(groups) > 1:
            tag = path[path.index(name) + 1 : path.index(name) + 2]
            groups = [one for one in groups if [one.model_fields["name"].default] == list(tag)]
        if not groups:
            return []
        kind = groups[0]
    return list(kind.model_fields)


def unknown_key(kind: type[BaseModel], path: Sequence[str]) -> str:
    """What to say about a key that is not there: its name here if a peer calls it so, the nearest, and its siblings."""
    known = siblings(kind, path[:-1])
    peer = PEERS.get(path[-1].lower().replace("-", "_"), "")
    if peer and peer not in (".".join(path), path[-1]):
        return f"; here it is {peer}"
    group = f" under {'.'.join(path[:-1])}" if len(path) > 1 else ""
    return nearest(path[-1], known) + (f" (known{group}: {', '.join(known)})" if known else "")


def as_text(options: Sequence[Option]) -> str:
    """The options as paragraphs within the terminal's width."""
    width = max(40, shutil.get_terminal_size((80, 24)).columns - 1)
    lines = []
    for option in options:
        head = f"{option.key}  {option.kind}" + (f", default {option.default}" if option.default else "")
        lines += textwrap.wrap(head, width, subsequent_indent="      ")
        lines += textwrap.wrap(option.meaning, width, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def as_markdown(kind: type[BaseModel]) -> str:
    """docs/options.md."""
    lines = [
        "# Every option",
        "",
        "`clinalign options --markdown > docs/options.md` writes this; `clinalign options align` shows a part.",
        "In a recipe `align.lr` is `align: {lr: ...}`, on the command line `align.lr=...`. A system under `compare`",
        "takes the keys of `align`, `warmup` too. `evaluate.decoder (vcd).alpha` is",
        "`evaluate.decoder: {name: vcd, alpha: ...}`.",
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    for option in every_option(kind):
        cells = (f"`{option.key}`", option.kind, f"`{option.default}`" if option.default else "", option.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    rows = [f"| `{name}` | {place} |" for name, place in PEERS.items()]
    lines += ["", "## What others call it", "", "| there | here |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def chosen(kind: type[BaseModel], path: str) -> list[Option]:
    """The options at a path and below it; all for "". Raises `UsageError` for one that is not there."""
    options = list(every_option(kind))
    found = [o for o in options if not path or o.key == path or o.key.startswith((f"{path}.", f"{path} ("))]
    if not found:
        raise UsageError(f"options: no key '{path}'{unknown_key(kind, path.split('.'))}")
    return found


def _groups(annotation: Any) -> list[type[BaseModel]]:
    """The option groups that a type names, through unions and annotations."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    inner = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _groups(inner[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [group for part in inner for group in _groups(part)]
    return []


def _tagged(kind: type[BaseModel]) -> list[type[BaseModel]]:
    return [kind] if "name" in kind.model_fields and kind.model_fields["name"].default is not PydanticUndefined else []


def _kind(field: FieldInfo) -> str:
    borders = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
    parts = [f"{word} {getattr(rule, name)}" for rule in field.metadata for name, word in borders.items()
             if isinstance(getattr(rule, name, None), int | float)]  # fmt: skip
    choice = next((rule for rule in field.metadata if isinstance(rule, Choice)), None)
    names = " or ".join([*choice.table, "module:name"]) if choice else _name(field.annotation)
    return " ".join([names, *parts])


def _name(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _name(inner[0])
    if origin is Literal:
        return " or ".join(str(value) for value in inner)
    if origin in (Union, types.UnionType):
        if len(_groups(annotation)) > 1:
            return "a name, or a group with a name"
        return " or ".join("empty" if part is type(None) else _name(part) for part in inner)
    if origin is list:
        return f"list of {_name(inner[0])}"
    if origin is dict:
        return f"group of names to {_name(inner[1])}"
    plain = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any value"}
    return plain.get(annotation, "group")


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return str(value.name) if hasattr(value, "name") else ""
    if isinstance(value, bool):
        return str(value).lower()
    return "empty" if value in (None, "") else str(value)
