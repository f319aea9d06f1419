"""The model's own forward, and what it hands its decoder: what every other way of computing is measured against.

Nothing of a family is used but how its images come into a prompt. One sequence at a time.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from clinalign.models.geometry import as_rgb
from clinalign.models.head import Readout

SAME = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}
"""How far logits of one state may be apart by rounding, beside the largest."""

if TYPE_CHECKING:
    from clinalign.models.vlm import VLM


def inputs(vlm: VLM, prompt: str, images: Sequence[np.ndarray], answer: Sequence[int] = ()) -> dict[str, Tensor]:
    """What the model's forward takes for one prompt with its images and an answer behind it, in its type and on its
    device: the word of its own processor; of `Parts`, which are none, their tokens and image processor."""
    if callable(vlm.processor):
        given = processed(vlm.processor, vlm.prompt_text(prompt, len(images)), images, answer)
        given = told_apart(vlm.model, given, vlm.image_token_id)
    else:
        given = _composed(vlm, prompt, images, answer)
    return {name: v.to(vlm.device, vlm.dtype if v.is_floating_point() else None) for name, v in given.items()}


def placeholder(processor: Any) -> str:
    """What a chat template writes once for each image."""
    return str(getattr(processor, "image_placeholder_token", None) or processor.image_token)


def processed(processor: Any, text: str, images: Sequence[np.ndarray], answer: Sequence[int] = ()) -> dict[str, Tensor]:
    """What a processor makes of a text and its images, with the ids of an answer behind."""
    shown = [Image.fromarray(as_rgb(image)) for image in images]
    given = processor(text=[text], images=shown or None, return_tensors="pt")
    ids = given["input_ids"]
    tail = torch.tensor([list(answer)], dtype=ids.dtype)
    found = {name: v for name, v in given.items() if isinstance(v, Tensor) and name != "labels"}
    found["input_ids"] = torch.cat([ids, tail], 1)
    for name, value in found.items():  # masks and token types stand beside the ids and grow with them
        if name != "input_ids" and value.shape == ids.shape:
            kind = 1 if name == "attention_mask" else _answer_type(processor) if name == "token_type_ids" else 0
            found[name] = torch.cat([value, torch.full_like(tail, kind, dtype=value.dtype)], dim=1)
        elif name.endswith("_mask") and value.shape[:2] == ids.shape and tail.numel():  # which images a token may see
            found[name] = torch.cat([value, value[:, -1:].expand(-1, tail.shape[1], *value.shape[2:])], dim=1)
    return found


def told_apart(model: Any, given: dict[str, Tensor], image_token_id: int) -> dict[str, Tensor]:
    """The same with the types of tokens where a model asks for them (positions follow) and its processor is silent."""
    if "mm_token_type_ids" in given or "mm_token_type_ids" not in accepted(model):
        return given
    return given | {"mm_token_type_ids": (given["input_ids"] == image_token_id).int()}


@lru_cache(maxsize=8)
def _answer_type(processor: Any) -> int:
    """The token type of an answer: where types tell images from words that of words, 0; where they tell a prompt from
    what follows it, images and prompt are 0 and what follows is 1."""
    given = processor(text=[placeholder(processor)], images=[Image.new("RGB", (64, 64))], return_tensors="pt")
    return 0 if bool(given["token_type_ids"].any()) else 1


def _composed(vlm: VLM, prompt: str, images: Sequence[np.ndarray], answer: Sequence[int]) -> dict[str, Tensor]:
    ids = torch.tensor([[*vlm.prompt_ids(prompt, images), *answer]])
    given: dict[str, Any] = {}
    if images:
        shown = [as_rgb(image) for image in images]
        nested = getattr(vlm.processor, "nested", False)
        given = dict(vlm.processor.image_processor(images=[shown] if nested else shown, return_tensors="pt"))
    types = (ids == vlm.image_token_id).long()
    given |= {"input_ids": ids, "mm_token_type_ids": types, "token_type_ids": types}
    given["attention_mask"] = torch.ones_like(ids)
    takes = accepted(vlm.model)
    return {name: v for name, v in given.items() if name in takes and isinstance(v, Tensor)}


def accepted(model: Any) -> set[str]:
    """Names of the arguments that a model's forward takes."""
    found = set(inspect.signature(model.forward).parameters)
    inner = getattr(model, "model", None)
    return found | (set(inspect.signature(inner.forward).parameters) if inner is not None else set())


class _Found(Exception):
    """Carries what a module was called with out of the forward around it."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.given = (args, kwargs)


def call_of(module: nn.Module, model: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments with which `model(**given)` calls one of its modules; the forward ends there."""

    def stop(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Found(args, kwargs)

    hook = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(**given, use_cache=False)
    except _Found as found:
        args, kwargs = found.given
        return dict(zip(inspect.signature(module.forward).parameters, args, strict=False)) | kwargs
    finally:
        hook.remove()
    raise ValueError(f"its forward never calls its {type(module).__name__}")


def states(vlm: VLM, given: dict[str, Tensor], count: int) -> Tensor:
    """The last `count` states [count, D] that the head reads in the model's own forward. Gradients flow."""
    read: list[Tensor] = []
    hook = vlm.head.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    try:
        vlm.model(**given, use_cache=False, **_rows(vlm.model, count))
    finally:
        hook.remove()
    return read[-1].reshape(-1, read[-1].shape[-1])[-count:]


def logits(vlm: VLM, given: dict[str, Tensor], count: int) -> Tensor:
    """The last `count` rows [count, V] of the model's own logits. Gradients flow."""
    out = vlm.model(**given, use_cache=False, **_rows(vlm.model, count)).logits
    return out.reshape(-1, out.shape[-1])[-count:].float()


def readout(vlm: VLM, given: dict[str, Tensor]) -> Readout:
    """What the model makes of its head's products: its configuration's word where its logits bear it out; `ValueError`
    where they are something else."""
    config = vlm.model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or getattr(config, "output_multiplier", None)
    scale = scale or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None) or 0.0
    with torch.no_grad():
        rows, expected = states(vlm, given, 4), logits(vlm, given, 4)
        products = torch.nn.functional.linear(rows.float(), vlm.head.weight.float())
    size = float(expected.abs().max())
    for found in (Readout(), Readout(scale), Readout(1.0, cap), Readout(scale, cap)):
        if float((found(products.clone()) - expected).abs().max()) <= SAME[vlm.dtype] * max(1.0, size):
            return found
    raise ValueError("its logits are not what its head makes of its states")


def _rows(model: Any, count: int) -> dict[str, Any]:
    named = inspect.signature(model.forward).parameters
    return {"logits_to_keep": count} if "logits_to_keep" in named else {}


def forget(model: Any) -> None:
    """Takes out what a forward leaves in the model for the next one (`rope_deltas`)."""
    for module in model.modules():
        with suppress(AttributeError):
            if module.rope_deltas is not None:
                module.rope_deltas = None
