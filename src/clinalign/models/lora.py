"""LoRA projections in one step: y = x W' + b + s (d A') B', d the dropped-out input.

PEFT forms the low-rank part, its scaling and the sum as tensors of their own, forward and backward. Here they are added
into the base layer's output and into the input's gradient in place; values and gradients are the same.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

from clinalign.models.dropout import TokenDropout


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, dropped: Tensor
    ) -> Tensor:
        out = nn.functional.linear(x, weight, bias)
        low = dropped.reshape(-1, a.shape[1]) @ a.t()
        out.view(-1, out.shape[-1]).addmm_(low, b.t(), alpha=scale)
        ctx.save_for_backward(dropped, weight, a, b, low)
        ctx.scale, ctx.same = scale, dropped is x
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dropped, weight, a, b, low = ctx.saved_tensors
        out = grad.reshape(-1, grad.shape[-1])
        low_grad = out @ (b * ctx.scale)
        d_a = low_grad.t() @ dropped.reshape(-1, a.shape[1])
        d_b = (out.t() @ low).mul_(ctx.scale)
        d_x = d_dropped = None
        if ctx.needs_input_grad[0]:
            d_x = out @ weight
            if ctx.same:
                d_x.addmm_(low_grad, a)
            d_x = d_x.view(dropped.shape)
        if ctx.needs_input_grad[6] and not ctx.same:
            d_dropped = (low_grad @ a).view(dropped.shape)
        return d_x, None, None, d_a, d_b, None, d_dropped


class LoraLinear(Linear):
    """PEFT's layer with one adapter in use computed in one step; whatever else it can be asked goes PEFT's own way.

    `masks`: dropout by token, shared by the model's layers; `number`: this layer's among them.
    """

    masks: TokenDropout
    number: int

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x [..., in] -> [..., out]."""
        base: Any = self.get_base_layer()
        names = self.active_adapters
        name = names[0] if len(names) == 1 else ""
        plain = name in self.lora_A and name not in self.lora_variant and self.lora_B[name].bias is None
        if not plain or self.disable_adapters or self.merged or args or kwargs or base.weight.requires_grad:
            return super().forward(x, *args, **kwargs)
        kind = x.device.type
        cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if cast else base.weight.dtype
        bias = None if base.bias is None else base.bias.to(dtype)
        down: Any = self.lora_A[name]
        up: Any = self.lora_B[name]
        x, weight, a, b = (t.to(dtype) for t in (x, base.weight, down.weight, up.weight))
        dropout = self.lora_dropout[name]
        dropped = x
        if self.training and isinstance(dropout, nn.Dropout) and dropout.p:
            by_token = self.masks(x, dropout.p, self.number)
            dropped = dropout(x) if by_token is None else by_token
        return _Project.apply(x, weight, bias, a, b, self.scaling[name], dropped)


def fuse(model: nn.Module) -> TokenDropout:
    """Lets PEFT's plain LoRA layers of a model, and no others, be computed in one step; their dropout by token."""
    masks = TokenDropout()
    for number, module in enumerate(model.modules()):
        if type(module) is Linear and isinstance(module.get_base_layer(), nn.Linear):
            module.__class__ = LoraLinear
            layer: Any = module
            layer.masks, layer.number = masks, number
    return masks
