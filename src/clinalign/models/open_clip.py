"""Teachers from open_clip (BiomedCLIP, UniMed-CLIP, other vision transformers); `pip install "clinalign[open_clip]"`.

Its own transformers and those it takes from timm are read at their last block: its input and output are caught, and the
class token's attention is computed from the input once more, since neither hands it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clinalign.errors import UsageError
from clinalign.models.fingerprint import hash_tensors
from clinalign.models.guard import check_folder
from clinalign.models.teachers import PatchFeatures, direct_effects, square_pixels, stretched

SCHEMES = ("hf-hub:", "local-dir:")


class OpenClipTeacher:
    """A model of open_clip whose image tower is a vision transformer with a class token."""

    def __init__(self, model: Any, tokenizer: Any = None, *, name: str = "open_clip") -> None:
        self.model, self.tokenizer, self.name = model.eval().requires_grad_(False), tokenizer, name
        visual = model.visual
        self.trunk = getattr(visual, "trunk", None)
        blocks = getattr(self.trunk, "blocks", None) if self.trunk is not None else _resblocks(visual)
        if blocks is None or (self.trunk is not None and not getattr(self.trunk, "num_prefix_tokens", 0)):
            raise UsageError(f"{name}: its image tower is no vision transformer with a class token; take another model")
        self.block = blocks[-1]
        embed = visual.conv1 if self.trunk is None else self.trunk.patch_embed.proj
        size, patch = visual.image_size, embed.kernel_size[0]
        self.size = int(size[0] if isinstance(size, list | tuple) else size)
        self.grid = (self.size // patch, self.size // patch)
        self.mean, self.std = (torch.tensor(getattr(visual, f"image_{part}")) for part in ("mean", "std"))
        red, green, blue = (int(x * 255) for x in self.mean.tolist())
        self.fill = (red, green, blue)
        self.device = next(model.parameters()).device
        self.fingerprint = hash_tensors(model.named_parameters(), f"open_clip {self.mean} {self.std} {model}")

    @torch.no_grad()
    def encode(self, images: Sequence[np.ndarray]) -> list[PatchFeatures]:
        """Features and maps of square images."""
        states, out = self._last_block(images)
        weights = self._weights(states).mean(1)
        first = 1 if self.trunk is None else self.trunk.num_prefix_tokens
        return [
            PatchFeatures(s, m)
            for s, m in zip(out[:, first:].float().cpu(), weights[:, first:].float().cpu(), strict=True)
        ]

    @torch.no_grad()
    def relevance(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> list[Tensor]:
        """How much of the image's similarity to its text the last block takes from each patch (`direct_effects`)."""
        visual = self.model.visual
        if self.trunk is not None or self.tokenizer is None or getattr(visual, "attn_pool", None) is not None:
            raise UsageError(f"{self.name}: question-aware maps need open_clip's own transformer with a class token")
        states, out = self._last_block(images)
        attention, normed = self.block.attn, self.block.ln_1(states)
        width, heads = attention.embed_dim, attention.num_heads
        weight, bias = attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :]
        values = (normed @ weight.t() + bias).unflatten(-1, (heads, -1))
        effects = direct_effects(values, self._weights(states), attention.out_proj.weight, out[:, 0], visual.ln_post)
        text = normalize(self.model.encode_text(self.tokenizer(list(texts)).to(self.device)).float(), dim=-1)
        image = effects @ visual.proj.float()
        return [stretched(r) for r in torch.einsum("bmp,bp->bm", image, text)[:, 1:].cpu()]

    def _last_block(self, images: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Input and output of the last block, [n, L, D] each."""
        caught: list[Tensor] = []
        hooks = [
            self.block.register_forward_pre_hook(lambda module, args: caught.append(args[0])),
            self.block.register_forward_hook(lambda module, args, out: caught.append(out)),
        ]
        try:
            self.model.encode_image(square_pixels(images, self.size, self.mean, self.std).to(self.device))
        finally:
            for hook in hooks:
                hook.remove()
        before, after = caught
        if self.trunk is None and not self.block.attn.batch_first:
            before, after = before.transpose(0, 1), after.transpose(0, 1)
        return before, after

    def _weights(self, states: Tensor) -> Tensor:
        """The class token's attention [n, H, L] in the last block, given the block's input."""
        if self.trunk is None:
            attention, normed = self.block.attn, self.block.ln_1(states)
            given = normed if attention.batch_first else normed.transpose(0, 1)
            return attention(given[:, :1] if attention.batch_first else given[:1], given, given,
                             need_weights=True, average_attn_weights=False)[1][:, :, 0]  # fmt: skip
        attention, normed = self.block.attn, self.block.norm1(states)
        query, key, _ = attention.qkv(normed).unflatten(-1, (3, attention.num_heads, -1)).unbind(2)
        query, key = attention.q_norm(query.transpose(1, 2)), attention.k_norm(key.transpose(1, 2))
        return (query[:, :, :1] @ key.transpose(2, 3) * attention.scale).softmax(-1)[:, :, 0]


def _resblocks(visual: Any) -> Any:
    return getattr(getattr(visual, "transformer", None), "resblocks", None)


def load_open_clip(name: str, *, device: torch.device | str = "cpu") -> OpenClipTeacher:
    """`NAME` with a scheme ("hf-hub:microsoft/...", "local-dir:/..."), or `NAME:WEIGHTS`, a safetensors file.

    Raises `UsageError` where open_clip is not installed or cannot load the model, or the weights are a pickle.
    """
    try:
        import open_clip
    except ImportError as error:
        raise UsageError(f"open_clip:{name}: pip install 'clinalign[open_clip]' ({error})") from error
    architecture, _, weights = (name, "", "") if name.startswith(SCHEMES) else name.partition(":")
    if not name.startswith(SCHEMES) and not weights.endswith(".safetensors"):
        raise UsageError(f"open_clip:{name}: give weights as NAME:FILE.safetensors; pickles are not loaded")
    if name.startswith("local-dir:"):
        check_folder(name.removeprefix("local-dir:"))
    try:
        model = open_clip.create_model(architecture, pretrained=weights or None, require_pretrained=True, device=device)
        tokenizer = open_clip.get_tokenizer(architecture)
    except (RuntimeError, OSError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise UsageError(f"open_clip:{name}: cannot load the teacher: {first}") from error
    return OpenClipTeacher(model, tokenizer, name=f"open_clip:{name}")
