"""LoRA on the language model's attention and MLP, and the table of what trains.

`all-linear` would reach the vision tower and the projector; here the adapter is placed by full module path, so that the
image features stay constants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from clinalign.errors import UsageError
from clinalign.models.guard import check_folder
from clinalign.storage.tensors import read_tensors, write_tensors

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj")
LANGUAGE = {"language_model", "text_model"}
FULL_WEIGHTS = "language_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
PROJECTOR_WEIGHTS = "projector.safetensors"
"""The projector's weights beside an adapter, or alone, where a training changed them."""
SEED_LIMIT = 2**63


def target_modules(model: nn.Module, decoder: str) -> list[str]:
    """Full paths of the attention and MLP projections below `decoder`, the language model's path."""
    pattern = re.compile(rf"^{re.escape(decoder)}\.layers\.\d+\..*\b({'|'.join(PROJECTIONS)})$")
    names = [name for name, module in model.named_modules() if pattern.search(name) and isinstance(module, nn.Linear)]
    if not names:
        raise UsageError(f"{type(model).__name__}: no attention or MLP projections found under {decoder}")
    return names


def attach(model: nn.Module, decoder: str, *, r: int, alpha: int, dropout: float, rslora: bool, seed: int) -> Any:
    """Puts a fresh adapter into `model` in place; returns the `PeftModel` around it. B is zero: nothing changes yet."""
    from peft import LoraConfig, get_peft_model

    from clinalign.models.lora import fuse

    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        use_rslora=rslora,
        target_modules=target_modules(model, decoder),
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % SEED_LIMIT)
        peft: Any = get_peft_model(model, config, autocast_adapter_dtype=True)
    peft.masks = fuse(peft)
    return peft


def load(model: nn.Module, folder: Path) -> Any:
    """Loads an adapter that PEFT wrote. `UsageError` when there is none, or it reaches outside the language model."""
    from peft import PeftModel

    from clinalign.models.lora import fuse

    if not (folder / ADAPTER_CONFIG).is_file():
        raise UsageError(f"{folder}: no adapter here (adapter_config.json is missing)")
    check_folder(folder)
    _check_kind(folder)
    try:
        peft: Any = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except Exception as error:  # PEFT raises whatever its readers raise: name the folder once, keep the cause
        raise UsageError(f"{folder}: cannot load the adapter: {str(error).splitlines()[0][:200]}") from error
    _check_keys(peft, folder)
    peft.masks = fuse(peft)
    return peft


def _check_kind(folder: Path) -> None:
    """`UsageError` for an adapter that carries more than LoRA: whole modules, biases or embeddings beside it would be
    trained on, saved and switched off with it, or change the image features."""
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise UsageError(f"{folder}: no adapter weights here (adapter_model.safetensors is missing)")
    try:
        with safe_open(path, framework="pt") as file:
            names = sorted(file.keys())
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path}: cannot load the adapter: {str(error).splitlines()[0][:200]}") from error
    outside = [name for name in names if "lora_" in name and not LANGUAGE & set(name.split("."))]
    if outside:
        raise UsageError(
            f"{folder}: the adapter reaches outside the language model ('{outside[0]}'); image features would change"
        )
    more = [name for name in names if "lora_" not in name]
    if more:
        raise UsageError(
            f"{folder}: the adapter carries more than LoRA ('{more[0]}'); merge it into the model with PEFT first"
        )


def _check_keys(peft: Any, folder: Path) -> None:
    """PEFT only warns where file and model differ by name, and leaves such tensors at zero: here that is an error."""
    from peft import get_peft_model_state_dict

    path = folder / "adapter_model.safetensors"
    with safe_open(path, framework="pt") as file:
        stored = set(file.keys())
    wanted = set(get_peft_model_state_dict(peft))
    if stored != wanted:
        odd = sorted(stored ^ wanted)
        what = "unknown to the model" if odd[0] in stored else "missing in the file"
        raise UsageError(f"{path}: {len(odd)} tensors do not fit this model, first '{odd[0]}' ({what}); train again")


def save_full(named: Mapping[str, Tensor], path: Path) -> None:
    """Writes fully fine-tuned weights under their names in the model."""
    write_tensors(path, named)


def projector(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights between vision tower and language model, by name. `UsageError` where none is known by its name."""
    found = {name: value for name, value in model.named_parameters() if _part(name) == "projector"}
    if not found:
        raise UsageError(f"{type(model).__name__}: no projector is known by its name; train the language model")
    return found


def load_full(model: nn.Module, path: Path) -> None:
    """Puts fully fine-tuned weights, or a projector's, into the model. A damaged file, or one of another model, is a
    `UsageError`."""
    weights, _ = read_tensors(path, "weights of this model", "train again", facts=False)
    own = dict(model.named_parameters())
    strange = next((n for n, v in weights.items() if n not in own or own[n].shape != v.shape), None)
    if strange is not None or not weights:
        raise UsageError(f"{path}: '{strange}' does not belong to this model; load the base it was trained from")
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)


def trainable_table(model: nn.Module) -> str:
    """One line per part of the model: its parameters and how many of them train."""
    rows: dict[str, list[int]] = {}
    for name, value in model.named_parameters():
        part = _part(name)
        total, trains = rows.setdefault(part, [0, 0])
        rows[part] = [total + value.numel(), trains + value.numel() * value.requires_grad]
    width = max(map(len, rows), default=4)
    lines = [f"{'part':<{width}}  {'parameters':>14}  {'trainable':>14}"]
    lines += [f"{part:<{width}}  {total:>14,}  {trains:>14,}" for part, (total, trains) in rows.items()]
    total, trains = (sum(row[i] for row in rows.values()) for i in (0, 1))
    return "\n".join([*lines, f"{'all':<{width}}  {total:>14,}  {trains:>14,}"])


def _part(name: str) -> str:
    for tower in ("vision_tower", "visual", "vision_model"):
        if f"{tower}." in name:
            return "projector" if ".merger" in name or ".deepstack_merger" in name else "vision tower"
    if "projector" in name or "connector" in name:
        return "projector"
    if "lora_" in name:
        return "language model, adapter"
    if "lm_head" in name:
        return "head"
    return "language model"
