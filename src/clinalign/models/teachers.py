"""Frozen CLIP models as MEDALIGN's teachers: an image into patch features and a map of where the teacher looks.

A teacher of one's own needs the few members of `TeacherModel`. Here: any CLIP or SigLIP of transformers, the small
CLIP that comes with the package, and those of open_clip, BiomedCLIP and UniMed-CLIP among them
(`pip install "clinalign[open_clip]"`).

Features are the output of the last block, before the final norm and the projection (SigLIP: after its final norm, which
its pooling reads). The map is the last block's attention from the class token to the patches, mean over heads; a SigLIP
has no class token, and the attention of its pooling head's probe takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import linear, normalize

from clinalign.errors import UsageError
from clinalign.models.fingerprint import configuration_hash, files_hash, hash_tensors
from clinalign.models.geometry import as_rgb
from clinalign.models.guard import EMBEDDED, SAFE, check_folder

OPEN_CLIP = "open_clip:"
KINDS = {"clip": "CLIPModel", "clip_vision_model": "CLIPVisionModel", "siglip": "SiglipModel",
         "siglip_vision_model": "SiglipVisionModel"}  # fmt: skip


@dataclass(frozen=True)
class PatchFeatures:
    """What a teacher sees in one image: `features` [M, b] and a map `attention` [M] >= 0, row by row of its grid."""

    features: Tensor
    attention: Tensor


class TeacherModel(Protocol):
    """A frozen image encoder that sees squares. `fill`: colour (uint8) of padding; `grid`: rows, columns of patches."""

    name: str
    grid: tuple[int, int]
    fill: tuple[int, int, int]
    fingerprint: str

    def encode(self, images: Sequence[np.ndarray]) -> list[PatchFeatures]:
        """Square uint8 images [S, S, 3] of any size."""
        ...

    def relevance(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> list[Tensor]:
        """Maps [M] from 0 to 1: how much each patch speaks for each image's text. `UsageError` where it cannot tell."""
        ...


def padded_square(image: np.ndarray, fill: tuple[int, int, int]) -> np.ndarray:
    """The image in the middle of a square of its longer side."""
    image = as_rgb(image)
    height, width = image.shape[:2]
    side = max(height, width)
    out = np.empty((side, side, 3), np.uint8)
    out[:] = fill
    top, left = (side - height) // 2, (side - width) // 2
    out[top : top + height, left : left + width] = image
    return out


def centre_square(image: np.ndarray, fill: tuple[int, int, int]) -> np.ndarray:
    """The middle of the image, a square of its shorter side: what a CLIP processor keeps of it."""
    image = as_rgb(image)
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def load_teacher(name: str = EMBEDDED[0], *, device: torch.device | str = "cpu") -> TeacherModel:
    """A teacher by name: an embedded one, a folder or hub name of a CLIP or SigLIP, or "open_clip:NAME[:WEIGHTS]".

    Raises `UsageError` for anything that is no such model.
    """
    if name.startswith(OPEN_CLIP):
        return load_open_clip(name.removeprefix(OPEN_CLIP), device=device)
    return _load_hf(name, device)


def teacher_files_hash(name: str) -> str:
    """Hash of a teacher's files, without loading it; "" where they come with a package or from open_clip's hub."""
    if name in EMBEDDED:
        return ""
    folder = name.removeprefix(OPEN_CLIP).removeprefix("local-dir:")
    return files_hash(folder) if folder == name or Path(folder).is_dir() else ""


class ClipTeacher:
    """A CLIP or SigLIP of transformers, whole (with text) or its vision tower alone."""

    def __init__(self, model: Any, images: Any, tokenizer: Any = None, *, name: str = "clip") -> None:
        self.model, self.tokenizer, self.name = model.eval().requires_grad_(False), tokenizer, name
        self.vision = getattr(model, "vision_model", model)
        self.vision.set_attn_implementation("eager")
        config = self.vision.config
        self.pooled = hasattr(self.vision, "head")
        if "siglip" in config.model_type and not self.pooled:
            raise UsageError(f"{name}: a SigLIP without its pooling head has no map of where it looks; take another")
        self.size = int(config.image_size)
        self.grid = (self.size // config.patch_size, self.size // config.patch_size)
        self.mean, self.std = (torch.tensor(values) for values in (images.image_mean, images.image_std))
        red, green, blue = (int(x * 255) for x in images.image_mean)
        self.fill = (red, green, blue)
        settings = f"{config.model_type} {self.mean} {self.std} {configuration_hash(model.config)}"
        self.fingerprint = hash_tensors(model.named_parameters(), settings)

    @torch.no_grad()
    def encode(self, images: Sequence[np.ndarray]) -> list[PatchFeatures]:
        """Features and maps of square images."""
        out = self.vision(pixel_values=self._pixels(images), output_attentions=True)
        states = out.last_hidden_state.float()
        if self.pooled:
            probe = self.vision.head.probe.expand(len(states), -1, -1)
            _, maps = self.vision.head.attention(probe, states, states, need_weights=True)
            return [PatchFeatures(s, m) for s, m in zip(states.cpu(), maps[:, 0].float().cpu(), strict=True)]
        maps = out.attentions[-1].float().mean(1)[:, 0, 1:]
        return [PatchFeatures(s, m) for s, m in zip(states[:, 1:].cpu(), maps.cpu(), strict=True)]

    @torch.no_grad()
    def relevance(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> list[Tensor]:
        """How much of the image's similarity to its text the last block takes from each patch: `direct_effects`."""
        if self.pooled or self.tokenizer is None or not hasattr(self.model, "visual_projection"):
            raise UsageError(f"{self.name}: question-aware maps need a whole CLIP, with text encoder and class token")
        out = self.vision(pixel_values=self._pixels(images), output_attentions=True, output_hidden_states=True)
        block, final = self.vision.encoder.layers[-1], self.vision.post_layernorm
        attention, states = block.self_attn, out.hidden_states[-2]
        values = attention.v_proj(block.layer_norm1(states)).unflatten(-1, (attention.num_heads, -1))
        effects = direct_effects(
            values, out.attentions[-1][:, :, 0], attention.out_proj.weight, out.last_hidden_state[:, 0], final
        )
        image = effects @ self.model.visual_projection.weight.t()
        given = self.tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True).to(self.model.device)
        text = normalize(self.model.get_text_features(**given).pooler_output.float(), dim=-1)
        return [stretched(r) for r in torch.einsum("bmp,bp->bm", image, text)[:, 1:].cpu()]

    def _pixels(self, images: Sequence[np.ndarray]) -> Tensor:
        pixels = square_pixels(images, self.size, self.mean, self.std)
        return pixels.to(self.model.device, self.model.dtype)


def direct_effects(values: Tensor, weights: Tensor, out_proj: Tensor, state: Tensor, final: Any) -> Tensor:
    """What each token adds to the class token through an attention layer, as the final norm lets it through: [B, L, D].

    values [B, L, H, d]; weights [B, H, L], the class token's row; out_proj [D, H d]; state [B, D], the class token
    before the final norm, whose deviation scales every part alike. The part of a token is a_h v_h W_o summed over
    heads, centred over its coordinates; the output's own bias belongs to no token. Idea: arXiv 2310.05916.
    """
    mixed = (values * weights.permute(0, 2, 1)[..., None]).flatten(2)
    parts = linear(mixed, out_proj).float()
    deviation = (state.float().var(-1, unbiased=False) + final.eps).sqrt()
    return (parts - parts.mean(-1, keepdim=True)) * final.weight.float() / deviation[:, None, None]


def square_pixels(images: Sequence[np.ndarray], size: int, mean: Tensor, std: Tensor) -> Tensor:
    """Square uint8 images as normalised pixels [n, 3, size, size], resized bicubically."""
    resized = [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in images]
    pixels = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255
    return (pixels - mean[:, None, None]) / std[:, None, None]


def stretched(values: Tensor) -> Tensor:
    """Values from 0 to 1, least to most; all 1 where they are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else torch.ones_like(values)


def _load_hf(name: str, device: torch.device | str) -> ClipTeacher:
    import transformers
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

    source = str(files("clinalign.models") / f"{name}_teacher") if name in EMBEDDED else name
    if name in EMBEDDED and not (Path(source) / "config.json").is_file():
        raise UsageError(f"{source}: the embedded teacher is not in this installation; reinstall, or build it anew")
    check_folder(source)
    try:
        config = AutoConfig.from_pretrained(source, **SAFE)
        if config.model_type not in KINDS:
            raise UsageError(f"{name}: a '{config.model_type}' is no teacher; known: {', '.join(sorted(KINDS))}")
        images = AutoImageProcessor.from_pretrained(source, backend="pil", **SAFE)
        model, info = getattr(transformers, KINDS[config.model_type]).from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **SAFE
        )
        text = config.model_type in ("clip", "siglip")
        tokenizer = AutoTokenizer.from_pretrained(source, **SAFE) if text else None
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise UsageError(f"{name}: cannot load the teacher: {first}") from error
    if info["missing_keys"]:
        raise UsageError(f"{name}: weights are missing, first '{min(info['missing_keys'])}'; download the model again")
    return ClipTeacher(model.to(device), images, tokenizer, name=name)


SCHEMES = ("hf-hub:", "local-dir:")


class OpenClipTeacher:
    """A model of open_clip whose image tower is a vision transformer with a class token, its own or one of timm's.

    It is read at its last block: input and output are caught, and the class token's attention is computed from the
    input once more, since neither kind hands it out.
    """

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
