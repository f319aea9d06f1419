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
from torch import Tensor, nn

if TYPE_CHECKING:
    from clinalign.models.vlm import VLM


def inputs(vlm: VLM, prompt: str, images: Sequence[np.ndarray], answer: Sequence[int] = ()) -> dict[str, Tensor]:
    """What the model's forward takes for one prompt with its images and an answer behind it, in its type and on its
    device: the word of its own processor; of `Parts`, which are none, their tokens and image processor."""
    if callable(vlm.processor):
        given = processed(vlm.processor, vlm.prompt_text(prompt, len(images)), images, answer)
    else:
        given = _composed(vlm, prompt, images, answer)
    return {name: v.to(vlm.device, vlm.dtype if v.is_floating_point() else None) for name, v in given.items()}


def processed(processor: Any, text: str, images: Sequence[np.ndarray], answer: Sequence[int] = ()) -> dict[str, Tensor]:
    """What a processor makes of a text and its images, with the ids of an answer behind."""
    given = processor(text=[text], images=list(images) or None, return_tensors="pt")
    ids = given["input_ids"]
    tail = torch.tensor([list(answer)], dtype=ids.dtype)
    found = {name: v for name, v in given.items() if isinstance(v, Tensor)} | {"input_ids": torch.cat([ids, tail], 1)}
    for name, value in found.items():  # masks and token types stand beside the ids and grow with them
        if name != "input_ids" and value.shape == ids.shape:
            kind = 1 if name == "attention_mask" else _answer_type(processor) if name == "token_type_ids" else 0
            found[name] = torch.cat([value, torch.full_like(tail, kind, dtype=value.dtype)], dim=1)
    return found


@lru_cache(maxsize=8)
def _answer_type(processor: Any) -> int:
    """The token type of an answer: where types tell images from words that of words, 0; where they tell a prompt from
    what follows it, images and prompt are 0 and what follows is 1."""
    given = processor(text=[processor.image_token], images=[np.zeros((64, 64, 3), np.uint8)], return_tensors="pt")
    return 0 if bool(given["token_type_ids"].any()) else 1


def _composed(vlm: VLM, prompt: str, images: Sequence[np.ndarray], answer: Sequence[int]) -> dict[str, Tensor]:
    ids = torch.tensor([[*vlm.prompt_ids(prompt, images), *answer]])
    given: dict[str, Any] = {}
    if images:
        from clinalign.models.geometry import as_rgb

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


def _rows(model: Any, count: int) -> dict[str, Any]:
    named = inspect.signature(model.forward).parameters
    return {"logits_to_keep": count} if "logits_to_keep" in named else {}


def forget(model: Any) -> None:
    """Takes out what a forward leaves in the model for the next one (`rope_deltas`)."""
    for module in model.modules():
        with suppress(AttributeError):
            if module.rope_deltas is not None:
                module.rope_deltas = None
