"""LoRA on the language model's attention and MLP, and the table of what trains.

`all-linear` would reach the vision tower and the projector; here the adapter is placed by full module path, so that the
image features stay constants.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from clinalign.errors import UsageError, first_line
from clinalign.models.guard import check_folder
from clinalign.storage import write_json
from clinalign.storage.tensors import read_tensors, write_tensors

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj")
LANGUAGE = {"language_model", "text_model"}
FULL_WEIGHTS = "language_model.safetensors"
IMAGE_WEIGHTS = "image_weights.safetensors"
"""Of projector and vision tower, where they train beside an adapter, or alone."""
IMAGE_PARTS = {"projector": "projector", "tower": "vision tower"}
"""What a recipe calls a part that images go through -> its line in the table of what trains."""
BASE_WEIGHTS = "base_weights.json"
"""Beside an adapter: a few of the weights that it was trained on. On others it fits too, and gives other answers."""
SAMPLED = 64, 8
"""Of how many matrices how many numbers each."""
CLOSE, MOST_OFF = 2**-7, 0.05
"""How far, relatively, a number of the same weights may be off, and what share may be further. Loaded in bfloat16 none
is; with a warm-up that was merged in bfloat16 1.3 %; ten steps of a warm-up that is missing move 10 % and more."""
PLAIN = (torch.float32, torch.bfloat16, torch.float16)
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

    targets = target_modules(model, decoder)
    sample = base_weights(model, targets)
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        use_rslora=rslora,
        target_modules=targets,
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % SEED_LIMIT)
        peft: Any = get_peft_model(model, config, autocast_adapter_dtype=True)
    peft.masks, peft.base_weights = fuse(peft), sample
    return peft


def load(model: nn.Module, folder: Path) -> Any:
    """Loads an adapter that PEFT wrote.

    `UsageError` when there is none, it reaches outside the language model, or was trained on other weights.
    """
    from peft import PeftModel

    from clinalign.models.lora import fuse

    if not (folder / "adapter_config.json").is_file():
        raise UsageError(f"{folder}: no adapter here (adapter_config.json is missing)")
    check_folder(folder)
    _check_kind(folder)
    sample = _check_base(model, folder) or base_weights(model, _adapted(folder))
    try:
        peft: Any = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except Exception as error:  # PEFT raises whatever its readers raise: name the folder once, keep the cause
        raise UsageError(f"{folder}: cannot load the adapter: {str(error).splitlines()[0][:200]}") from error
    _check_keys(peft, folder)
    peft.masks, peft.base_weights = fuse(peft), sample
    return peft


def base_weights(model: nn.Module, names: Sequence[str]) -> dict[str, list[float]]:
    """A few numbers of some of the matrices named, by name; none of what is not there, is quantized or not finite."""
    matrices, numbers = SAMPLED
    modules = dict(model.named_modules())
    found: dict[str, list[float]] = {}
    for name in names[:: -(-len(names) // matrices) or 1]:
        weight = getattr(modules.get(name), "weight", None)
        if isinstance(weight, Tensor) and weight.dtype in PLAIN:
            values = weight.detach().reshape(-1)[:numbers].float().cpu()
            if bool(values.isfinite().all()):
                found[name] = values.tolist()
    return found


def save(peft: Any, folder: Path) -> None:
    """Writes an adapter as PEFT does (safetensors), and beside it a sample of the weights that it was trained on."""
    # Named here: of layers that were trained in shares, `state_dict()` would take apart what it lists.
    named = dict(peft.named_parameters())
    peft.save_pretrained(str(folder), safe_serialization=True, state_dict=named)
    (folder / BASE_WEIGHTS).unlink(missing_ok=True)
    if peft.base_weights:
        write_json(folder / BASE_WEIGHTS, peft.base_weights)


def _adapted(folder: Path) -> list[str]:
    """The modules that a stored adapter is of, in order."""
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        return sorted({key.removeprefix("base_model.model.").split(".lora_")[0] for key in file.keys()})  # noqa: SIM118


def _check_base(model: nn.Module, folder: Path) -> dict[str, list[float]]:
    """The sample that an adapter has of the weights that it stands on; `UsageError` where the model has others."""
    path = folder / BASE_WEIGHTS
    if not path.is_file():  # of another's making
        return {}
    try:
        stored = {str(name): [float(x) for x in values] for name, values in json.loads(path.read_bytes()).items()}
        own = base_weights(model, list(stored))
        pairs = [pair for name in own for pair in zip(stored[name], own[name], strict=True)]
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise UsageError(f"{path}: is damaged ({first_line(error)}); train again") from error
    off = sum(not abs(a - b) <= CLOSE * abs(b) for a, b in pairs)
    if off > MOST_OFF * len(pairs):
        raise UsageError(
            f"{folder}: the adapter was trained on other weights than this model has; load the model that it was "
            "trained on (with its warm-up merged, where it had one; `clinalign merge` writes all as a plain model); a "
            f"copy of the folder without {BASE_WEIGHTS} loads all the same"
        )
    return stored


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


def load_full(model: nn.Module, path: Path, *, keep: bool = False) -> dict[str, Tensor]:
    """Puts fully fine-tuned weights into the model; with `keep`, gives those that stood there.

    A damaged file, or one of another model, is a `UsageError`.
    """
    weights, _ = read_tensors(path, "the weights of a language model", "train again", facts=False)
    own = dict(model.named_parameters())
    strange = next((n for n, v in weights.items() if n not in own or own[n].shape != v.shape), None)
    if strange is not None or not weights:
        raise UsageError(f"{path}: '{strange}' does not belong to this model; load the base it was trained from")
    before = {name: own[name].detach().clone() for name in weights} if keep else {}
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
    return before


def image_parameters(model: nn.Module, parts: Collection[str]) -> dict[str, nn.Parameter]:
    """The weights of the parts named in `IMAGE_PARTS`, by name; `UsageError` where the model has none of one."""
    found: dict[str, nn.Parameter] = {}
    for part in parts:
        named = {name: value for name, value in model.named_parameters() if _part(name) == IMAGE_PARTS[part]}
        if not named:
            raise UsageError(
                f"{type(model).__name__}: no weights are known as its {IMAGE_PARTS[part]}; leave it frozen"
            )
        found |= named
    return found


def frozen_tower(model: nn.Module) -> nn.Module | None:
    """The vision tower, where it is a module of its own without the projector: what it makes of an image is a constant
    as long as it is frozen."""
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in ("vision_tower", "vision_model"):
            parts = {_part(f"{name}.{inner}") for inner, _ in module.named_parameters()}
            trains = any(value.requires_grad for value in module.parameters())
            return module if parts == {"vision tower"} and not trains else None
    return None


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
    if any(word in name for word in ("projector", "connector", "aligner", "embed_vision")):
        return "projector"
    if "lora_" in name:
        return "language model, adapter"
    if "lm_head" in name:
        return "head"
    return "language model"
