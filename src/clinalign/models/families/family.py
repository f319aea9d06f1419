"""What a model family has to provide. To support a new one, write these functions and name it in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Grid = tuple[int, int]
Change = Callable[[int, Tensor], Tensor]


@dataclass
class Parts:
    """Image processor, tokenizer and chat template together.

    Some of Hugging Face's own processors also want a video processor, which needs torchvision; videos are not used.
    `side`: rows and columns of the token grid where every image has the same. `frame`: what stands before an image's
    tokens, the token itself where it is not the placeholder of the template, and what stands after them. `nested`: the
    image processor wants a list of images for each prompt.
    """

    image_processor: Any
    tokenizer: Any
    chat_template: str | None
    image_token: str
    side: int = 0
    frame: tuple[str, str, str] = ("", "", "")
    nested: bool = False

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> str:
        """The messages as one text."""
        return self.tokenizer.apply_chat_template(messages, chat_template=self.chat_template, **options)

    def save_pretrained(self, folder: Path) -> None:
        """Writes the parts next to the model."""
        self.image_processor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


class View(NamedTuple):
    """One image at another size through tower and projector: `features` [n, F] of a grid of tokens, row by row, and
    which of them each of the tower's patches went into, [P], in the order in which its attention has them."""

    features: Tensor
    grid: Grid
    owners: Tensor


def square_grid(processor: Any, input_image: np.ndarray) -> Grid:
    """The grid of a model that sees every image at one size."""
    return processor.side, processor.side


def framed(processor: Any, grid: Grid) -> str:
    """An image's tokens between what the family writes around them."""
    before, token, after = processor.frame
    return before + (token or processor.image_token) * cells(processor, grid) + after


def cells(processor: Any, grid: Grid) -> int:
    """A token for each cell of the grid."""
    return grid[0] * grid[1]


def blocks(grid: Grid, side: int) -> Tensor:
    """The token that each patch of a tower goes into where `side` x `side` patches become one, row by row [P]."""
    rows = torch.arange(grid[0]).repeat_interleave(side)
    columns = torch.arange(grid[1]).repeat_interleave(side)
    return (rows[:, None] * grid[1] + columns).reshape(-1)


def resized(processor: Any, input_image: np.ndarray, scale: float, cell: int) -> tuple[Tensor, Grid]:
    """An image's pixel values at `scale` times its usual side, [1, 3, H, W] in whole cells of `cell` pixels, and the
    grid of these."""
    pixels = processor.image_processor(images=[input_image], return_tensors="pt")["pixel_values"]
    pixels = pixels.reshape(1, *pixels.shape[-3:])
    rows, columns = (max(1, round(side * scale / cell)) for side in pixels.shape[-2:])
    size = (rows * cell, columns * cell)
    return torch.nn.functional.interpolate(pixels, size=size, mode="bicubic", antialias=True), (rows, columns)


def noise(processor: Any, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise for the pixel values of an image. A still image that comes as several equal frames, as
    flat patches, gets the same on each."""
    images = processor.image_processor
    frames, patch = getattr(images, "temporal_patch_size", 1), getattr(images, "patch_size", 0)
    if frames == 1 or pixels.ndim != 2:
        return torch.randn(pixels.shape, generator=generator)
    drawn = torch.randn(len(pixels), pixels.shape[1] // frames // patch**2, 1, patch**2, generator=generator)
    return drawn.expand(-1, -1, frames, -1).reshape(pixels.shape)


def put(embeddings: Tensor, where: Tensor, features: Tensor) -> Tensor:
    """Embeddings [B, L, D] with the rows chosen by `where` [B, L] replaced by `features` [M, D], in reading order."""
    return embeddings.masked_scatter(where[..., None], features.to(embeddings.device, embeddings.dtype))


def place(embeddings: Tensor, where: Tensor, features: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """`put`, where the language model takes nothing else of the images."""
    return put(embeddings, where, features), {}


def plain_positions(ids: Sequence[int], grids: Sequence[Grid], image_token_id: int) -> Tensor:
    """0, 1, 2, ... [1, L]."""
    return torch.arange(len(ids))[None]


def same_image(images: Tensor) -> Tensor:
    """bool [B, 1, L, L]: both tokens belong to one stretch of image tokens; images bool [B, L]."""
    begins = images & ~images.roll(1, dims=1)
    begins[:, 0] = images[:, 0]
    number = begins.cumsum(1).masked_fill(~images, 0)
    return (number[:, None, :, None] == number[:, None, None, :]) & images[:, None, None, :]


def encode_selected(
    model: Any, processor: Any, images: Sequence[np.ndarray], change: Change | None = None
) -> list[Tensor]:
    """Features of images of one size, from the layer and by the strategy that the configuration names."""
    pixels = processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
    if change is not None:
        pixels = torch.stack([change(i, one) for i, one in enumerate(pixels)])
    out = model.model.get_image_features(
        pixel_values=pixels.to(model.device, model.dtype),
        vision_feature_layer=model.config.vision_feature_layer,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        return_dict=True,
    )
    return list(out.pooler_output)


@dataclass(frozen=True)
class Family:
    """Plain functions, by default those of a model that sees every image at one size and has ordinary positions.

    `processor` is the Hugging Face processor, `images` are uint8 [H, W, 3] arrays of any size.
    name: the `model_type` of its configurations. model_class: name of the class in transformers. axes: 1, or 3 where
        positions have three (M-RoPE).
    check(config) -> why this configuration cannot be used, or None.
    build_processor(image_processor, tokenizer, settings, config) -> the processor; settings are those of its own file.
    grid(processor, input_image) -> rows and columns of the image's token grid, given the image at input resolution.
    token_count(processor, grid) -> image tokens of one image (a class token may come on top of the grid).
    encode(model, processor, images) -> one [N, F] feature tensor an image. F is the text width, times (1 + K) where K
        further decoder layers receive features of their own (they stand side by side in the last axis). Where `normals`
        is given it also takes `change(i, pixels)`: what the tower sees instead of the pixels of image i.
    normals(processor, pixels of one image, generator) -> standard normal noise in the layout of the tower's pixels.
    view(model, processor, input_image, scale) -> the image at `scale` times its usual side, by positions that the tower
        has or makes for it; `no_view(config)` says why there is none, "" where there is. tower: a path like `language`.
    place(embeddings [B, L, D], where bool [B, L], features [M, F]) -> embeddings with the features put in, and further
        keyword arguments of the language model's forward.
    token_inputs(language model, ids [B, L], where bool [B, L]) -> what else it is told of its tokens by their ids
        (Gemma 4's embeddings of each layer), as keyword arguments of its forward; `where`: image tokens.
    positions(ids, grids, image_token_id) -> [A, L] position ids of one sequence, A = axes.
    image_text(processor, grid) -> the text that stands for one image in a prompt; it replaces `processor.image_token`,
        which the chat template writes once for each image.
    masks(text config, mask bool [B, 1, Q, K], queries [B, Q], keys [B, K], images bool [B, K] or None) -> what the
        language model takes as attention mask, where the plain mask is not enough: layers with a window of their own,
        images that look both ways. Positions, not indexes, tell how far apart two tokens are: a packed row forks.
    language: where the decoder is, as a path from the model itself.
    known: false where only the model's own forward is used, never what the functions know of its insides.
    geometry: false where images are not seen as one grid of tokens (`generic.py`).
    rects(processor, image [H, W, 3]) -> what `Inputs.image_token_rects` gives, where there is no one grid but it is
        known which pixels a token stands for (`tiles.py`).
    """

    name: str
    model_class: str
    build_processor: Callable[[Any, Any, dict[str, Any], Any], Any]
    encode: Callable[..., list[Tensor]]
    grid: Callable[[Any, np.ndarray], Grid] = square_grid
    token_count: Callable[[Any, Grid], int] = cells
    place: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, dict[str, Any]]] = place
    token_inputs: Callable[[Any, Tensor, Tensor], dict[str, Any]] | None = None
    positions: Callable[[Sequence[int], Sequence[Grid], int], Tensor] = plain_positions
    check: Callable[[Any], str | None] = lambda config: None
    axes: int = 1
    image_text: Callable[[Any, Grid], str] = framed
    masks: Callable[[Any, Tensor, Tensor, Tensor, Tensor | None], Any] | None = None
    normals: Callable[[Any, Tensor, torch.Generator], Tensor] | None = None
    view: Callable[[Any, Any, np.ndarray, float], View] | None = None
    no_view: Callable[[Any], str] = lambda config: "its image tokens are no grid that a selection of patches fits into"
    tower: str = "model.vision_tower"
    language: str = "model.language_model"
    known: bool = True
    geometry: bool = True
    rects: Callable[[Any, np.ndarray], np.ndarray] | None = None
