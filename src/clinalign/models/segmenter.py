"""Segmenters of the SAM family: an image and a phrase (SAM 3) or a box (SAM, SAM 2) into a mask.

The model classes are those of transformers; images are prepared with PIL and masks are read out here, so that no
torchvision is needed. Weights come from a folder or a hub name, safetensors only; MedSAM3 is a LoRA adapter on SAM 3,
MedSAM a SAM.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn.functional import interpolate

from clinalign.errors import UsageError
from clinalign.models.fingerprint import configuration_hash, hash_tensors
from clinalign.models.guard import SAFE, check_folder
from clinalign.models.load import DTYPES

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Box = list[float]
Normalise = tuple[tuple[float, ...], tuple[float, ...]]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of SAM: its model class, what it is asked with ("text" or "box"), its own mean and SD, whether the image
    keeps its proportions (longest side resized, padded below and right) or is stretched, and how it is asked."""

    model_class: str
    prompt: str
    normalise: Normalise
    keeps_shape: bool
    ask: Callable[[Segmenter, torch.Tensor, Any, tuple[int, int]], tuple[torch.Tensor, torch.Tensor]]


@dataclass(slots=True)
class Found:
    """mask: bool [H, W], the union of what was found; scores: of each detection kept; empty where nothing was."""

    mask: Mask
    scores: list[float]


class Segmenter:
    """A loaded segmenter. `prompt` says what it is asked with: "text" or "box"; `fingerprint` is a hash of all that its
    masks depend on."""

    def __init__(
        self, model: Any, family: str, name: str, tokenizer: Any = None, normalise: Normalise | None = None
    ) -> None:
        self.model, self.tokenizer, self.name, self.kind = model.eval().requires_grad_(False), tokenizer, name, family
        self.family = FAMILIES[family]
        self.prompt = self.family.prompt
        mean, sd = normalise or self.family.normalise
        self.mean, self.sd = np.array(mean, np.float32), np.array(sd, np.float32)
        self.size = _image_size(model.config)
        settings = f"{family} {self.mean} {self.sd} {configuration_hash(model.config)}"
        self.fingerprint = hash_tensors(model.state_dict().items(), settings)

    @torch.no_grad()
    def segment(self, image: Pixels, prompt: str | Box, threshold: float = 0.5) -> Found:
        """The region of a phrase or of a box [x, y, w, h] in an image uint8 [H, W, 3].

        Text: every detection whose score (its own times that of the phrase being there at all) is above `threshold`;
        a pixel belongs to one where its mask probability is above one half. Box: the best of the model's masks for it,
        where its predicted overlap is above `threshold`.
        """
        if isinstance(prompt, str) != (self.prompt == "text"):
            raise ValueError(f"{self.name} is asked with a {self.prompt}, not with {prompt!r}")
        shape = (image.shape[0], image.shape[1])
        pixels, inside = self.prepare(image)
        logits, scores = self.family.ask(self, pixels, prompt, shape)
        keep = scores > threshold
        kept = _enlarged(logits[keep], self.size if self.family.keeps_shape else 0, inside, shape)
        mask: Mask = (kept > 0).any(0).cpu().numpy() if len(kept) else np.zeros(shape, dtype=bool)
        return Found(mask, [round(float(score), 4) for score in scores[keep]])

    def prepare(self, image: Pixels) -> tuple[torch.Tensor, tuple[int, int]]:
        """Pixel values [1, 3, size, size], and the (height, width) of them that the image fills."""
        inside = _inside((image.shape[0], image.shape[1]), self.size, self.family.keeps_shape)
        resized = Image.fromarray(image).resize((inside[1], inside[0]), Image.Resampling.BILINEAR)
        values = (np.asarray(resized, dtype=np.float32) / 255 - self.mean) / self.sd
        out = torch.zeros(1, 3, self.size, self.size)
        out[0, :, : inside[0], : inside[1]] = torch.from_numpy(values.transpose(2, 0, 1))
        return out.to(self.model.device, self.model.dtype), inside


def load_segmenter(name_or_folder: str, *, adapter: str = "", dtype: str = "float32", device: str = "cpu") -> Segmenter:
    """Loads a SAM, SAM 2 or SAM 3 from a folder or by its hub name; `adapter` is a PEFT folder, merged into it.

    Raises `UsageError` where there are no weights, where they are of another family, or where the adapter does not fit.
    """
    import transformers

    config, kind = _config(name_or_folder)
    family = FAMILIES.get(kind)
    if family is None:
        known = ", ".join(FAMILIES)
        raise UsageError(f"{name_or_folder}: '{kind}' is no segmenter that is known here (known: {known})")
    source = _source(name_or_folder)
    try:
        check_folder(source)
        with torch.random.fork_rng():
            model = getattr(transformers, family.model_class).from_pretrained(
                source, use_safetensors=True, dtype=DTYPES[dtype], **SAFE
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **SAFE) if family.prompt == "text" else None
    except (UsageError, OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name_or_folder}: {_no_weights(error)}") from error
    if adapter:
        model = _merged(model, adapter)
    return Segmenter(model.to(device), kind, name_or_folder, tokenizer, _normalisation(source))


def _source(name: str) -> str:
    path = Path(name).expanduser()
    return str(path) if path.exists() else name


def _config(name: str) -> tuple[Any, str]:
    from transformers import AutoConfig

    path = Path(name).expanduser()
    local = path.exists() or path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1
    if local and not (path / "config.json").is_file():
        raise UsageError(
            f"{path}: no segmenter here (config.json is missing); give a folder saved with save_pretrained"
        )
    try:
        if local:
            kind = json.loads((path / "config.json").read_text(encoding="utf-8")).get("model_type", "")
            return None, _alias(kind)
        config = AutoConfig.from_pretrained(name, **SAFE)
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{name}: {_no_weights(error)}") from error
    return config, _alias(config.model_type)


def _alias(kind: str) -> str:
    """Checkpoints of the video models hold the image model too."""
    return {"sam3_video": "sam3", "sam2_video": "sam2"}.get(kind, kind)


def _no_weights(error: Exception) -> str:
    first = str(error).strip().splitlines()[0][:160]
    return f"no segmenter weights can be loaded ({first}); download the model and give its folder"


def _merged(model: Any, adapter: str) -> Any:
    from peft import PeftModel

    if not (Path(adapter) / "adapter_model.safetensors").is_file():
        raise UsageError(f"{adapter}: no adapter here (adapter_model.safetensors is missing); give a PEFT folder")
    try:
        return PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except (ValueError, RuntimeError, KeyError) as error:
        raise UsageError(f"{adapter}: does not fit the segmenter ({str(error).splitlines()[0][:160]})") from error


def _normalisation(source: str) -> Normalise | None:
    """Mean and SD of the checkpoint's own image processor, where its folder tells."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = Path(source) / name
        if path.is_file():
            settings = json.loads(path.read_text(encoding="utf-8"))
            settings = settings.get("image_processor", settings)
            if "image_mean" in settings and "image_std" in settings:
                return tuple(settings["image_mean"]), tuple(settings["image_std"])
    return None


def _image_size(config: Any) -> int:
    """Pixels a side of the model's input."""
    prompt = getattr(config, "prompt_encoder_config", None)
    size = prompt.image_size if prompt is not None else config.image_size
    return int(size[0] if isinstance(size, (list, tuple)) else size)


def _inside(shape: tuple[int, int], size: int, keeps_shape: bool) -> tuple[int, int]:
    if not keeps_shape:
        return size, size
    scale = size / max(shape)
    return int(shape[0] * scale + 0.5), int(shape[1] * scale + 0.5)


def _enlarged(logits: torch.Tensor, size: int, inside: tuple[int, int], shape: tuple[int, int]) -> torch.Tensor:
    """Mask values [n, h, w] of the model's whole input at the image's own size [n, H, W]; with `size`, the side of a
    padded input, by way of that input, so that the padding can be cut off."""
    if not len(logits):
        return logits
    if size:
        logits = interpolate(logits[None].float(), (size, size), mode="bilinear", align_corners=False)[0]
        logits = logits[:, : inside[0], : inside[1]]
    return interpolate(logits[None].float(), shape, mode="bilinear", align_corners=False)[0]


def _ask_text(
    segmenter: Segmenter, pixels: torch.Tensor, phrase: str, shape: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask probabilities less one half [queries, h, w] and scores [queries] of SAM 3 for a phrase."""
    longest = segmenter.model.config.text_config.max_position_embeddings
    words = segmenter.tokenizer(
        phrase, return_tensors="pt", padding="max_length", max_length=longest, truncation=True
    ).to(pixels.device)
    out = segmenter.model(pixel_values=pixels, input_ids=words["input_ids"], attention_mask=words["attention_mask"])
    scores = out.pred_logits[0].sigmoid() * out.presence_logits[0].sigmoid()
    return out.pred_masks[0].sigmoid() - 0.5, scores


def _ask_box(
    segmenter: Segmenter, pixels: torch.Tensor, box: Box, shape: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask logits [1, h, w] and predicted overlap [1] of SAM or SAM 2 for a box in pixels of the image."""
    inside = _inside(shape, segmenter.size, segmenter.family.keeps_shape)
    across, down = inside[1] / shape[1], inside[0] / shape[0]
    x, y, w, h = box
    corners = torch.tensor([[[x * across, y * down, (x + w) * across, (y + h) * down]]])
    out = segmenter.model(pixel_values=pixels, input_boxes=corners.to(pixels), multimask_output=True)
    scores = out.iou_scores[0, 0]
    best = int(scores.argmax())
    return out.pred_masks[0, 0, best : best + 1], scores[best : best + 1]


FAMILIES = {
    "sam3": Family("Sam3Model", "text", HALF, False, _ask_text),
    "sam2": Family("Sam2Model", "box", IMAGENET, False, _ask_box),
    "sam": Family("SamModel", "box", IMAGENET, True, _ask_box),
}
"""`model_type` of a checkpoint -> how it is loaded and asked."""
