"""A decoder's weights in shares, one a process (FSDP2: torch's `fully_shard`), and what a tensor in shares needs.

Each layer of the decoder is put together when its turn comes, forward and backward, and taken apart again; gradients
and AdamW's moments exist in shares alone. Embedding, head, vision tower and projector, small beside the layers, stay
whole in every process. accelerate is not asked for it: its FSDP on a CPU is plain data parallelism without a word.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from clinalign.objectives import Method
from clinalign.processes import count
from clinalign.training.options import TrainOptions

if TYPE_CHECKING:
    from clinalign.models import VLM

LAUNCHERS = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
"""What `accelerate launch` sets where its configuration asks for a way of sharing that no training on pairs takes."""


def launched_with(name: str) -> bool:
    """Whether `accelerate launch` set one of its switches."""
    return os.environ.get(name, "").lower() in ("1", "true")


def refusal(options: TrainOptions, method: Method, *, unpacked: bool, quantize: bool, cached: bool) -> str:
    """Why several processes cannot train so, and what to do; "" where they can.

    Layers in shares need every process to do the same forwards in the same order, whatever pairs it has.
    """
    for name, what in LAUNCHERS.items():
        if launched_with(name):
            return (
                f"accelerate's {what} ({name}) would be ignored here, and on a CPU accelerate itself makes plain data "
                "parallelism of FSDP; launch without it and set parallel=fsdp to train in shares"
            )
    if options.parallel != "fsdp" or count() == 1:
        return ""
    if unpacked:
        return "parallel=fsdp needs the packed forward, the same in every process; set parallel=ddp"
    if quantize:
        return "parallel=fsdp takes no 4-bit weights; set quantize=none, or parallel=ddp"
    if "language" not in options.train:  # a process whose pairs show no image would put no layer together again
        what = " and ".join(options.image_parts)
        return f"parallel=fsdp shares the language model's layers, and train={what} trains none; set parallel=ddp"
    if method.rescale or method.baseline:
        what = "align.rescale" if options.rescale else f"method {options.method}"
        return f"{what} needs more gradients or forwards than the step's, which shares do not give; set parallel=ddp"
    if method.compares and not cached:
        return "parallel=fsdp reads the reference from its cache; set a cache folder, or parallel=ddp"
    return ""


def shard(vlm: VLM) -> None:
    """Takes the decoder's layers apart, in place. Raises `RuntimeError` where a weight that trains in them stays
    whole: torch would train on without a word."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    decoder = vlm.language_model
    mesh = init_device_mesh(vlm.device.type, (count(),))
    for layer in decoder.layers:
        fully_shard(layer, mesh=mesh)
    inside = {id(value) for layer in decoder.layers for value in layer.parameters()}
    fully_shard(decoder, mesh=mesh, ignored_params={p for p in decoder.parameters() if id(p) not in inside})
    for module in (decoder, *decoder.layers):
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)  # pairs weigh 1 / batch, so gradients are summed
        module.set_force_sum_reduction_for_comms(True)
    odd = [n for n, p in decoder.layers.named_parameters() if not isinstance(p, DTensor)]
    if odd:
        raise RuntimeError(f"parallel=fsdp: '{odd[0]}' and {len(odd) - 1} more are not in shares")


def unshard(vlm: VLM) -> None:
    """Puts the layers together for good: a plain model again in every process, which no forward takes apart."""
    for layer in vlm.language_model.layers:
        layer.set_reshard_after_forward(False)
        layer.unshard()


def whole(value: Tensor) -> Tensor:
    """A tensor put together out of its shares, in every process; one without shares as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def shared_like(value: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, the same in every process, on the device of another and in shares where that is."""
    value = value.to(other.device)
    if not isinstance(other, DTensor):
        return value
    return distribute_tensor(value, other.device_mesh, other.placements, src_data_rank=None)


def groups(params: Iterable[Tensor]) -> list[list[Tensor]]:
    """Parameters without shares and with, of which no kernel takes both at once; a kind that is missing left out."""
    kinds: dict[bool, list[Tensor]] = {}
    for value in params:
        kinds.setdefault(isinstance(value, DTensor), []).append(value)
    return list(kinds.values())


def sum_gradients(params: Mapping[str, Tensor]) -> None:
    """One reduction over the gradients of all processes; those in shares are summed already.

    A parameter that no process has a gradient of stays without, as it does in one process: AdamW leaves that alone, and
    moves one whose gradient is zero by what it saw before.
    """
    plain = [value for value in params.values() if not isinstance(value, DTensor)]
    if count() == 1 or not plain:
        return
    grads = [torch.zeros_like(value) if value.grad is None else value.grad for value in plain]
    mine = [value.grad is not None for value in plain]
    everyones = grads[0].new_tensor(mine)
    flat = torch.nn.utils.parameters_to_vector([*grads, everyones])
    torch.distributed.all_reduce(flat)
    torch.nn.utils.vector_to_parameters(flat, [*grads, everyones])
    reached = mine if all(mine) else (everyones > 0).tolist()  # a look at the device only where one is missing here
    for value, grad, some in zip(plain, grads, reached, strict=True):
        value.grad = grad if some else None


def clip_gradients(params: Iterable[Tensor], limit: float) -> Tensor:
    """Scales all gradients so that their norm is at most `limit` (0: as they are); gives the norm before."""
    parts = groups(params)
    grads = [[p.grad for p in part if p.grad is not None] for part in parts]
    norms = [whole(torch.nn.utils.get_total_norm(some)) for some in grads if some] or [parts[0][0].new_zeros(())]
    norm = torch.linalg.vector_norm(torch.stack(norms)) if len(norms) > 1 else norms[0]
    for part in parts:
        torch.nn.utils.clip_grads_with_norm_(part, limit or math.inf, norm)
    return norm
