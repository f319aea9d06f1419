"""A family nobody wrote functions for: what transformers itself offers is enough.

The model's own processor says what an image is in a prompt; the model's own forward, stopped where it calls its
decoder, gives the features that stand in for the image tokens, the positions and the kinds of masks. Whether the packed
forward made of these is right is not assumed: `models/proof.py` measures it at load. Images go to the processor as they
are, tiles included; which pixels an image token stands for is known of some types (`tiles.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clinalign.errors import UsageError
from clinalign.models import own
from clinalign.models.families import tiles
from clinalign.models.families.family import Change, Family, Grid, noise, put, same_image
from clinalign.models.geometry import as_rgb

PLAIN = {"inputs_embeds", "attention_mask", "position_ids", "past_key_values", "use_cache", "cache_position"}
PIXELS = "pixel_values"
BY_LAYER = "per_layer_inputs"
DEEPER = ("visual_pos_masks", "deepstack_visual_embeds")


class Unusual(Exception):
    """Why a model cannot be packed: it works by its own forward alone."""


def decoder_path(model: Any) -> str:
    """Where the decoder is, as a path from the model; `UsageError` where it has no layers."""
    decoder = model.get_decoder()
    while not hasattr(decoder, "layers") and hasattr(decoder, "get_decoder") and decoder.get_decoder() is not decoder:
        decoder = decoder.get_decoder()
    path = next((name for name, module in model.named_modules() if module is decoder), "")
    if not path or not hasattr(decoder, "layers"):
        raise UsageError(
            f"a {model.config.model_type} model has no decoder here ({type(decoder).__name__} in its place)"
        )
    return path


class Pictures:
    """Images as a processor sees them, remembered by what they become in a prompt: the text, its tokens, and the small
    numbers beside the pixels (`image_grid_thw`). A grid is (image tokens, number of that text)."""

    def __init__(self, processor: Any, image_token_id: int, strict: bool) -> None:
        self.processor, self.image_token_id, self.strict = processor, image_token_id, strict
        self.seen: dict[str, int] = {}
        self.texts: list[str] = []
        self.grids: list[Tensor | None] = []
        self._sizes: dict[tuple[int, ...], Grid] = {}
        self._rects: dict[tuple[int, ...], np.ndarray] = {}

    def rects(self, config: Any, image: np.ndarray) -> np.ndarray:
        """Each image token's rectangle in source pixels [N, 4]; see `tiles.py`."""
        if image.shape not in self._rects:
            count, _ = self.grid(self.processor, image)
            self._rects[image.shape] = tiles.token_rects(config, self._pixels, image.shape[:2], count)
        return self._rects[image.shape].copy()

    def _pixels(self, image: Image.Image) -> Any:
        given = self.processor(text=[asked(self.processor)], images=[image], return_tensors="pt")
        return given["pixel_values"]

    def grid(self, processor: Any, image: np.ndarray) -> Grid:
        """What an image [H, W, 3] becomes; images of one size become the same."""
        if image.shape not in self._sizes:
            self._sizes[image.shape] = self._grid(image)
        return self._sizes[image.shape]

    def _grid(self, image: np.ndarray) -> Grid:
        given = self.processor(
            text=[asked(self.processor)],
            images=[Image.fromarray(as_rgb(image))],
            return_tensors="pt",
            return_text_replacement_offsets=True,
        )
        count = int((given["input_ids"] == self.image_token_id).sum())
        replaced = given.get("text_replacement_offsets") or [[]]
        says = bool(replaced[0])
        if not says and self.strict:
            raise Unusual("its processor does not say what it puts in an image's place")
        text = replaced[0][0]["replacement"] if says else own.placeholder(self.processor) * count
        thw = given.get("image_grid_thw")
        name = f"{text} {None if thw is None else thw.tolist()}"
        if name not in self.seen:
            self.seen[name] = len(self.texts)
            self.texts.append(text)
            self.grids.append(thw)
        return count, self.seen[name]

    def text(self, processor: Any, grid: Grid) -> str:
        """What stands for an image in a prompt."""
        return self.texts[grid[1]]


def family(model: Any, processor: Any, image_token_id: int, *, known: bool = True) -> Family:
    """The functions of one loaded model. With `known=False` only its own forward is used.

    Raises `Unusual` where its insides are not of the usual form.
    """
    pictures = Pictures(processor, image_token_id, strict=known)
    path = decoder_path(model)
    blank = np.zeros((96, 64, 3), np.uint8)
    if known:
        pictures.grid(processor, blank)
    with torch.no_grad():
        call = _call(model, path, pictures, blank) if known else {}
    axes = _axes(call.get("position_ids"))
    return Family(
        name=model.config.model_type,
        model_class=type(model).__name__,
        build_processor=_refuse,
        grid=pictures.grid,
        token_count=lambda processor, grid: grid[0],
        encode=_encoder(path, pictures) if known else _refuse,
        place=_place,
        token_inputs=_by_layer if call.get(BY_LAYER) is not None else None,
        positions=_positions(model, pictures, axes),
        axes=axes,
        image_text=pictures.text,
        masks=_masks(model, call, image_token_id) if known else None,
        normals=noise if call.get("pixels") == {PIXELS} else None,
        no_view=_no_view,
        language=path,
        known=known,
        geometry=False,
        rects=(lambda _, image: pictures.rects(model.config, image)) if _placed(model, known) else None,
    )


def _no_view(config: Any) -> str:
    if config.model_type in tiles.LAYOUTS:
        return "its image is cut into tiles: several grids and ends of rows, into which no selection of patches fits"
    return "how its tower's patches become image tokens is not known here"


def _placed(model: Any, known: bool) -> bool:
    return known and model.config.model_type in tiles.LAYOUTS


def _refuse(*_: Any, **__: Any) -> Any:
    raise UsageError(
        "this model's family has no functions here; write them in models/families/ (see family.py: build_processor, "
        "grid, token_count, encode, place, positions)"
    )


def _axes(positions: Tensor | None) -> int:
    return int(positions.shape[0]) if positions is not None and positions.ndim == 3 else 1


def asked(processor: Any) -> str:
    """A question with one image, as the chat template writes it."""
    content = [{"type": "image"}, {"type": "text", "text": "?"}]
    text: str = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    return text


def _call(
    model: Any,
    path: str,
    pictures: Pictures,
    image: np.ndarray,
    change: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Any]:
    """What the decoder is called with for one image, and their ids; `Unusual` for what no packed row could carry.

    `change`: what the tower sees instead of the pixel values."""
    given = own.processed(pictures.processor, asked(pictures.processor), [image])
    if change is not None:
        given[PIXELS] = change(given[PIXELS])
    pixels = {name for name, value in given.items() if value.is_floating_point()}
    given = own.told_apart(model, given, pictures.image_token_id)
    given = {n: v.to(model.device, model.dtype if v.is_floating_point() else None) for n, v in given.items()}
    call = own.call_of(model.get_submodule(path), model, given)  # with the caller's gradient, or without
    known = {*PLAIN, *DEEPER, *(_told(model, path, call, given["input_ids"]) or {})}
    odd = sorted(n for n, v in call.items() if n not in known and _carries(v))
    if odd:
        raise Unusual(f"its decoder is told more of a token than its embedding ({', '.join(odd)})")
    if call.get("inputs_embeds") is None:
        raise Unusual("its decoder takes ids, not embeddings")
    return call | {"ids": given["input_ids"], "pixels": pixels}


def _told(model: Any, path: str, call: dict[str, Any], ids: Tensor) -> dict[str, Any] | None:
    """What the decoder is told of its tokens by their ids, if `_by_layer` gives just that."""
    decoder = model.get_submodule(path)
    said = call.get(BY_LAYER)
    if said is None or not hasattr(decoder, f"get_{BY_LAYER}"):
        return None
    found = _by_layer(decoder, ids, ids == _image_token(model.config))
    same = found[BY_LAYER].shape == said.shape and torch.allclose(found[BY_LAYER], said)
    return found if same else None


def _by_layer(decoder: Any, ids: Tensor, where: Tensor) -> dict[str, Any]:
    """Each layer's own embedding of a token (Gemma 4); an image's tokens have that of padding."""
    found = decoder.get_per_layer_inputs(ids.masked_fill(where, decoder.config.pad_token_id), None)
    return {BY_LAYER: found}


def _image_token(config: Any) -> int:
    return int(getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None) or -1)


def _carries(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and any(map(_carries, value)))


def _encoder(path: str, pictures: Pictures) -> Callable[..., list[Tensor]]:
    def encode(model: Any, processor: Any, images: Sequence[np.ndarray], change: Change | None = None) -> list[Tensor]:
        found = []
        for i, image in enumerate(images):
            call = _call(model, path, pictures, image, None if change is None else partial(change, i))
            where = call["ids"] == pictures.image_token_id
            deeper = call.get("deepstack_visual_embeds") or []
            found.append(torch.cat([call["inputs_embeds"][where], *deeper], dim=-1))
        return found

    return encode


def _place(embeddings: Tensor, where: Tensor, features: Tensor) -> tuple[Tensor, dict[str, Any]]:
    first, *deeper = features.to(embeddings.device, embeddings.dtype).split(embeddings.shape[-1], dim=-1)
    kwargs = dict(zip(DEEPER, (where, deeper), strict=True)) if deeper else {}
    return put(embeddings, where, first), kwargs


def _positions(model: Any, pictures: Pictures, axes: int) -> Callable[[Sequence[int], Sequence[Grid], int], Tensor]:
    def positions(ids: Sequence[int], grids: Sequence[Grid], image_token_id: int) -> Tensor:
        plain = torch.arange(len(ids)).expand(axes, -1)
        if axes == 1 or not grids:
            return plain
        row = torch.tensor([list(ids)], device=model.device)
        shown = [pictures.grids[number] for _, number in grids]
        given = {
            "input_ids": row,
            "mm_token_type_ids": (row == image_token_id).int(),
            "image_grid_thw": torch.cat([thw for thw in shown if thw is not None]).to(model.device),
            "attention_mask": torch.ones_like(row),
        }
        rope = model.get_rope_index if hasattr(model, "get_rope_index") else model.model.get_rope_index
        takes = inspect.signature(rope).parameters
        found: Tensor = rope(**{name: value for name, value in given.items() if name in takes})[0]
        return found[:, 0].cpu()

    return positions


def _masks(model: Any, call: dict[str, Any], image_token_id: int) -> Callable[..., Any] | None:
    """Masks by kind of layer, where the decoder has several or images look both ways; None where one mask will do."""
    config = model.config.get_text_config()
    kinds = sorted(set(getattr(config, "layer_types", None) or []))
    other = [kind for kind in kinds if kind not in _KINDS]
    if other:
        raise Unusual(f"it has layers of {', '.join(kind.replace('_', ' ') for kind in other)}")
    given = call.get("attention_mask")
    shown = call["ids"] == image_token_id
    several = isinstance(given, dict) or len(kinds) > 1
    each = given if isinstance(given, dict) else dict.fromkeys(kinds or [""], given)
    both = {kind: _looks_both_ways(one, shown) for kind, one in each.items()}
    if not several and not any(both.values()):
        return None

    def masks(config: Any, mask: Tensor, queries: Tensor, keys: Tensor, images: Tensor | None) -> Any:
        wide = mask if images is None or not any(both.values()) else mask | same_image(images)
        if not several:
            return wide
        query, key = queries[:, None, :, None], keys[:, None, None, :]
        return {kind: _KINDS[kind](config, wide if both.get(kind) else mask, query, key) for kind in kinds}

    return masks


def _looks_both_ways(mask: Any, images: Tensor) -> bool:
    """Whether an image's tokens, images bool [1, L], see those behind them in a mask of the call (bool, or added to
    scores); `Unusual` where other tokens do."""
    if not isinstance(mask, Tensor) or mask.ndim != 4:
        return False
    ahead = (mask if mask.dtype == torch.bool else mask == 0).triu(1)
    if bool((ahead & ~same_image(images)).any()):
        raise Unusual("its prompts look both ways")
    return bool(ahead.any())


_KINDS: dict[str, Callable[[Any, Tensor, Tensor, Tensor], Tensor]] = {
    "full_attention": lambda config, mask, query, key: mask,
    "sliding_attention": lambda config, mask, query, key: mask & (key > query - config.sliding_window),
    "chunked_attention": lambda config, mask, query, key: (
        mask & (key // config.attention_chunk_size == query // config.attention_chunk_size)
    ),
}
