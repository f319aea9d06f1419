"""LoRA in one step equals PEFT's own layers, value and gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import nn

from clinalign.models.lora import LoraLinear, fuse


class Two(nn.Module):
    """Two projections, one with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.up_proj, self.down_proj = nn.Linear(6, 10), nn.Linear(10, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., 6] -> [..., 4]."""
        return self.down_proj(torch.tanh(self.up_proj(x)))


def pair(dropout: float = 0.0, dtype: torch.dtype = torch.float32):
    """The same adapted model twice: PEFT's own and in one step."""
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=6, lora_dropout=dropout, target_modules=["up_proj", "down_proj"])
    theirs = get_peft_model(Two().to(dtype), config)
    with torch.no_grad():
        for name, value in theirs.named_parameters():
            if "lora_B" in name:
                value.normal_()
    ours = copy.deepcopy(theirs)
    fuse(ours)
    assert sum(type(m) is LoraLinear for m in ours.modules()) == 2
    assert not any(type(m) is Linear for m in ours.modules())
    return theirs, ours


def run(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Output, and the gradients of the adapter and of the input where it has one."""
    model.zero_grad()
    x.grad = None
    torch.manual_seed(7)
    out = model(x)
    (out * torch.arange(out.numel()).view_as(out).cos()).sum().backward()
    found = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    return out, found + ([x.grad.clone()] if x.requires_grad else [])


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_equals_peft(dropout: float, training: bool, grad: bool) -> None:
    theirs, ours = (model.train(training) for model in pair(dropout))
    x = torch.randn(2, 5, 6, requires_grad=grad)
    (expected, wanted), (out, found) = run(theirs, x), run(ours, x)
    assert torch.allclose(out, expected, atol=1e-6)
    assert len(found) == len(wanted) == 4 + grad
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, wanted, strict=True))
    assert all(p.grad is None for p in ours.parameters() if not p.requires_grad)


def test_adapter_off_and_merged_go_pefts_own_way() -> None:
    theirs, ours = pair()
    x = torch.randn(3, 6)
    with theirs.disable_adapter(), ours.disable_adapter():
        assert torch.equal(ours(x), theirs(x))
    adapted = ours(x)
    ours.merge_adapter()
    assert torch.allclose(ours(x), adapted, atol=1e-6)
    ours.unmerge_adapter()
    assert torch.allclose(ours.unload()(x), theirs.unload()(x), atol=1e-6)


def test_low_precision_keeps_the_adapter_in_float32() -> None:
    """bfloat16 weights with a float32 adapter, and autocast over float32 weights: near, with float32 gradients."""
    for dtype, cast in ((torch.bfloat16, False), (torch.float32, True)):
        theirs, ours = pair(dtype=dtype)
        x = torch.randn(4, 6, dtype=dtype, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            (expected, wanted), (out, found) = run(theirs, x), run(ours, x)
        assert out.dtype == expected.dtype == torch.bfloat16
        assert torch.allclose(out.float(), expected.float(), atol=0.1, rtol=0.05)
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype == b.dtype and torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99
        assert all(p.dtype == torch.float32 for n, p in ours.named_parameters() if "lora_" in n)


def test_a_second_adapter_goes_pefts_own_way() -> None:
    theirs, ours = pair()
    for model in (theirs, ours):
        torch.manual_seed(1)
        model.add_adapter("more", LoraConfig(r=2, target_modules=["up_proj"], init_lora_weights=False))
        model.base_model.set_adapter(["default", "more"])
    fuse(ours)
    x = torch.randn(3, 6)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
