"""After step one whatever trains has had a gradient, or the run stops with its name."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

from clinalign.errors import UsageError
from clinalign.training.metrics import check_gradients


def some(*, grad: float | None) -> Parameter:
    value = Parameter(torch.zeros(3))
    value.grad = None if grad is None else torch.full((3,), grad)
    return value


def test_a_fresh_adapter_passes() -> None:
    """Its first matrix has no gradient while the second is zero; a layer that nothing reaches does not stop a run."""
    path = "model.language_model.layers.{}.self_attn.q_proj.lora_{}.default.weight"
    check_gradients(
        {
            path.format(0, "A"): some(grad=0.0),
            path.format(0, "B"): some(grad=0.1),
            path.format(1, "A"): some(grad=None),
            path.format(1, "B"): some(grad=None),
        }
    )


@pytest.mark.parametrize("grad", [None, 0.0])
def test_a_group_without_a_gradient_is_named(grad: float | None) -> None:
    params = {
        "model.language_model.layers.0.self_attn.q_proj.lora_B.default.weight": some(grad=0.1),
        "base_model.model.model.visual.blocks.0.attn.proj.lora_B.default.weight": some(grad=grad),
        "base_model.model.model.visual.blocks.1.attn.proj.lora_B.default.weight": some(grad=grad),
    }
    with pytest.raises(UsageError, match=r"step 1: no gradient reached 'model\.visual\.blocks\.attn\.proj'"):
        check_gradients(params)
