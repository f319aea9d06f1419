"""The image-token projection of MEDALIGN (arXiv 2512.18554): a linear map W added to image tokens before a layer.

    x~ = x + epsilon * W x      at image positions of the input of layer l; W starts at zero

W stays in fp32 whatever the model's type. It cannot be merged into a weight, since text tokens must pass unchanged, so
it lies beside the adapter in a file of its own and is loaded with it. Positions travel with each forward as an argument
of the language model (`AttentionRequest.images`): no state goes stale in cached or chunked decoding or in
recomputation.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clinalign.errors import UsageError
from clinalign.models.attention import NOTHING, REQUEST, AttentionRequest
from clinalign.storage.tensors import read_tensors, write_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clinalign.models.vlm import VLM

FILE = "projection.safetensors"


class ImageProjection(nn.Module):
    """W of some layers: `weight.L` [D, D], or with a `rank` `up.L` [D, r] (zero at first) times `down.L` [r, D]."""

    def __init__(
        self, width: int, layers: Sequence[int], *, rank: int = 0, epsilon: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__()
        self.width, self.layers, self.rank, self.epsilon = width, sorted(set(layers)), rank, epsilon
        self.on = True
        generator = torch.Generator().manual_seed(seed % 2**63)
        for layer in self.layers:
            if rank:
                down = torch.randn(rank, width, generator=generator) / width**0.5
                self.register_parameter(f"down:{layer}", nn.Parameter(down))
                self.register_parameter(f"up:{layer}", nn.Parameter(torch.zeros(width, rank)))
            else:
                self.register_parameter(f"weight:{layer}", nn.Parameter(torch.zeros(width, width)))

    def change(self, tokens: Tensor, layer: int) -> Tensor:
        """epsilon W x of tokens [M, D], in their type."""
        named = dict(self.named_parameters())
        for name in ("down", "up") if self.rank else ("weight",):
            tokens = nn.functional.linear(tokens, named[f"{name}:{layer}"].to(tokens.device, tokens.dtype))
        return self.epsilon * tokens

    def forward(self, hidden: Tensor, where: Tensor, layer: int) -> Tensor:
        """Hidden states [B, L, D] with the positions `where` [B, L] projected; all others are the same bits."""
        rows, columns = where.nonzero(as_tuple=True)
        tokens = hidden[rows, columns]
        return hidden.index_put((rows, columns), tokens + self.change(tokens, layer).to(tokens.dtype))

    @contextmanager
    def off(self) -> Iterator[None]:
        """While open, nothing is projected."""
        before, self.on = self.on, False
        try:
            yield
        finally:
            self.on = before

    def save(self, folder: Path) -> None:
        """Writes `projection.safetensors`."""
        facts = {"layers": self.layers, "rank": self.rank, "epsilon": self.epsilon, "width": self.width}
        write_tensors(folder / FILE, dict(self.named_parameters()), facts)


def read_projection(path: Path, vlm: VLM) -> ImageProjection:
    """The W of a file, if it was made for a model like this one. Anything else is a `UsageError`."""
    width, layers = vlm.head.weight.shape[1], len(vlm.language_model.layers)
    values, facts = read_tensors(path, "a W", "train again")
    try:
        projection = ImageProjection(facts["width"], facts["layers"], rank=facts["rank"], epsilon=facts["epsilon"])
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path}: damaged W ({error}); train again") from error
    if projection.width != width or not projection.layers or projection.layers[-1] >= layers:
        made = f"width {projection.width}, layers {projection.layers}"
        raise UsageError(f"{path}: made for another model ({made}; this one has width {width}, {layers} layers)")
    own = dict(projection.named_parameters())
    wrong = sorted(n for n in own.keys() | values.keys() if n not in own or n not in values)
    wrong += [n for n, v in values.items() if n in own and v.shape != own[n].shape]
    if wrong:
        raise UsageError(f"{path}: '{wrong[0]}' is missing, unknown or of another shape; train again")
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    return projection


def install(vlm: VLM, projection: ImageProjection) -> list[Any]:
    """Hooks the layers (and the whole model, which is told its image positions); returns the handles to remove."""
    projection.to(vlm.device)
    handles = [vlm.model.model.register_forward_pre_hook(_positions(vlm.image_token_id), with_kwargs=True)]
    for layer in projection.layers:
        block = vlm.language_model.layers[layer]
        handles.append(block.register_forward_pre_hook(_projected(projection, layer), with_kwargs=True))
    return handles


def _positions(image_token_id: int) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is not None:
            kwargs[REQUEST] = AttentionRequest(images=ids == image_token_id)
        return args, kwargs

    return hook


def _projected(projection: ImageProjection, layer: int) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        hidden, request = args[0], kwargs.get(REQUEST, NOTHING)
        if request.images is None and hidden.shape[1] > 1:
            raise RuntimeError(
                "a model with an image projection must know where its image tokens are; run it through a VLM"
            )
        if projection.on and request.images is not None:
            hidden = projection(hidden, request.images, layer)
        if request.inputs is not None:
            request.inputs.setdefault(layer, hidden)
        return (hidden, *args[1:]), kwargs

    return hook
