"""What a decoder needs of a model, and why a model does not have it: said before anything is asked.

What can be read from a configuration is said without weights; what a rule inside attention relies on is measured, once
for a loaded model, by forwards of one short prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from clinalign.decoding.imccd import turned
from clinalign.errors import first_line
from clinalign.models.attention import Attention, AttentionRequest
from clinalign.models.generate import encode_prompts, prefill
from clinalign.models.tower import no_class_attention, no_views

if TYPE_CHECKING:
    from clinalign.models import VLM

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Of the largest value: rounding of attention formed another way."""
SHIFTS = (3, 5, 2)
_measured: WeakKeyDictionary[VLM, dict[str, str]] = WeakKeyDictionary()


def lacking(vlm: VLM, needs: tuple[str, ...]) -> str:
    """The first reason why a model does not have what is needed, "" where it has all of it."""
    return next((why for need in needs if (why := NEEDS[need](vlm))), "")


def _no_text_alone(vlm: VLM) -> str:
    return "it takes no question without an image, and one is the contrast" if vlm.images_a_question[0] else ""


def _no_noise(vlm: VLM) -> str:
    return "" if vlm.family.normals is not None else "how noise lies on what its tower sees is not known"


def _no_plain_attention(vlm: VLM) -> str:
    return _of_attention(vlm)["attention"]


def _no_rotation(vlm: VLM) -> str:
    if len(_kinds(vlm)) > 1:
        return "its layers turn positions in more than one way, so tokens cannot be moved in all of them"
    return _of_attention(vlm)["rotation"]


def _no_pruning(vlm: VLM) -> str:
    if _kinds(vlm) - {"full_attention"}:
        return "it has layers with a window, and a pruned cache no longer says how far back a token is"
    return "" if hasattr(vlm.language_model, "norm") else "its decoder's last norm is not where it usually is"


def _kinds(vlm: VLM) -> set[str]:
    return set(getattr(vlm.language_model.config, "layer_types", None) or [])


NEEDS: dict[str, Callable[[VLM], str]] = {
    "text_alone": _no_text_alone,
    "noise": _no_noise,
    "attention": _no_plain_attention,
    "rotation": _no_rotation,
    "pruning": _no_pruning,
    "class_token": no_class_attention,
    "views": no_views,
}
"""By name: why a model lacks it."""


class Compared:
    """A rule that changes nothing: how far a layer's output is from its scores' softmax over values, and its keys."""

    def __init__(self) -> None:
        self.gaps: dict[int, float] = {}
        self.keys: dict[int, Tensor] = {}

    def __call__(self, attention: Attention) -> Tensor:
        out = attention.plain()
        gap = (attention.mixed(attention.scores().softmax(-1)) - out).abs().max() / out.abs().max().clamp(min=1e-9)
        self.gaps[attention.layer], self.keys[attention.layer] = float(gap), attention.key
        return out


def _of_attention(vlm: VLM) -> dict[str, str]:
    """Why rules inside attention would not do what they say; nothing is known of a model without weights."""
    if vlm.device.type == "meta":
        return {"attention": "", "rotation": ""}
    if vlm not in _measured:
        _measured[vlm] = {"attention": _tried(vlm, _attention), "rotation": _tried(vlm, _rotation)}
    return _measured[vlm]


def _tried(vlm: VLM, measure: Callable[[VLM], str]) -> str:
    try:
        return measure(vlm)
    except Exception as error:  # each decoder of an unusual form fails in its own way
        return f"its attention is of an unusual form ({first_line(error)})"


def _attention(vlm: VLM) -> str:
    rule, layers = _watched(vlm, None), len(vlm.language_model.layers)
    if len(rule.gaps) < layers:
        return f"{layers - len(rule.gaps)} of its {layers} layers do not show their attention"
    if not max(rule.gaps.values()) <= TOLERANCE[vlm.dtype]:
        return "its attention is not the softmax of its scores over its values"
    return ""


def _rotation(vlm: VLM) -> str:
    """All tokens moved alike leave every layer's states as they were, but for the turn of its keys."""
    moved = torch.tensor(SHIFTS[: vlm.family.axes])[:, None]
    here, there = _watched(vlm, None), _watched(vlm, moved)
    for layer, key in here.keys.items():
        by = moved.expand(-1, key.shape[2])[:, None].to(key.device)
        rotary = vlm.language_model.rotary_emb
        found = turned(key, rotary(key.float(), by[0] if len(by) == 1 else by), rotary)
        if not float((found - there.keys[layer]).abs().max() / key.abs().max()) <= TOLERANCE[vlm.dtype]:
            return "its layers do not turn positions as its decoder's rotation says, so a token cannot be moved"
    return ""


@torch.no_grad()
def _watched(vlm: VLM, moved: Tensor | None) -> Compared:
    rule, rng = Compared(), np.random.default_rng(0)
    picture = rng.integers(0, 256, (8, 6, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    with vlm.evaluating():
        ids, features, grids = encode_prompts(vlm, [("Where?", [picture])])
        positions = None if moved is None else [vlm.positions(ids[0], grids[0]) + moved]
        prefill(vlm, ids, features, grids, AttentionRequest(rule=rule), positions=positions)
    return rule
