"""Tools that others bring: a segmentation model of Hugging Face, a tool behind HTTP, the model itself on a crop."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage

from clinalign.agent.fundus import OneEye, corners
from clinalign.agent.tools import Fact, Image, ToolOutput
from clinalign.errors import UsageError, first_line
from clinalign.language.graph import CONCEPTS

MOST_BYTES = 1 << 24
"""Of an HTTP tool's reply."""


class SegmentationTool:
    """A semantic segmenter (`AutoModelForSemanticSegmentation`) out of a folder or a hub name; safetensors only.

    `findings` maps the model's labels to findings of the concept graph; other labels are passed over. Images are
    resized and normalised as `preprocessor_config.json` says. Raises `UsageError` for a label that the model lacks.
    """

    description = "Segments findings with a trained model; says whether and in which quadrants."
    measures: Mapping[str, tuple[str, ...]] = {}
    input: type[BaseModel] = OneEye
    output = ToolOutput

    def __init__(self, source: str, findings: Mapping[str, str], *, name: str = "segment", least: float = 1e-4) -> None:
        from transformers import AutoModelForSemanticSegmentation

        from clinalign.models.guard import SAFE, check_folder

        check_folder(source)
        try:
            model = AutoModelForSemanticSegmentation.from_pretrained(source, use_safetensors=True, **SAFE)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{source}: not a segmentation model ({first_line(error)}); give its folder or name"
            ) from error
        self.model, self.name, self.least = model.eval(), name, least
        labels = {str(label): int(i) for i, label in model.config.id2label.items()}
        self.classes: dict[str, int] = {}
        for label, finding in findings.items():
            if label not in labels:
                raise UsageError(f"{source}: no label '{label}'; it has {', '.join(sorted(labels)[:8])}")
            if finding not in CONCEPTS:
                raise UsageError(f"{source}: '{finding}' is no finding of the concept graph")
            self.classes[finding] = labels[label]
        self.covers = frozenset(self.classes)
        self.size, self.mean, self.sd = _preprocessing(Path(source))

    def run(self, request: OneEye, images: Sequence[Image]) -> ToolOutput:
        import torch
        from PIL import Image as Picture

        [image] = images
        small = np.asarray(Picture.fromarray(image).resize((self.size[1], self.size[0]), Picture.Resampling.BILINEAR))
        pixels = (small.astype(np.float32) / 255 - self.mean) / self.sd
        with torch.no_grad():
            logits = self.model(pixel_values=torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())).logits
            wide = torch.nn.functional.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)
        classes = wide[0].argmax(0).numpy()
        masks = {finding: classes == number for finding, number in self.classes.items()}
        return ToolOutput(
            facts=[self._fact(finding, mask, request.laterality) for finding, mask in masks.items()], masks=masks
        )

    def _fact(self, finding: str, mask: np.ndarray, eye: Any) -> Fact:
        if mask.mean() < self.least:
            return Fact(finding=finding, status="absent", laterality=eye)
        return Fact(
            finding=finding,
            laterality=eye,
            corners=corners(mask, eye) if eye else (),
            count=int(ndimage.label(mask)[1]),
        )


class HTTPTool:
    """A tool behind an address: POST {"arguments", "images": [PNG, base64]}, reply {"facts": [...], "quote": "..."}.

    The reply is data: it is validated as any tool's output is. Plain http is for this machine alone.
    """

    input: type[BaseModel] = OneEye
    output = ToolOutput

    def __init__(
        self,
        name: str,
        url: str,
        description: str,
        *,
        covers: Sequence[str] = (),
        measures: Mapping[str, tuple[str, ...]] | None = None,
        seconds: float = 20.0,
    ) -> None:
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        local = parts.hostname in ("127.0.0.1", "localhost", "::1")
        if parts.scheme not in ("http", "https") or (parts.scheme == "http" and not local):
            raise UsageError(f"agent tool {name}: {url}: give an https address, or http on this machine")
        self.name, self.url, self.description, self.seconds = name, url, description, seconds
        self.measures: Mapping[str, tuple[str, ...]] = dict(measures or {})
        self.covers = frozenset(covers) | frozenset(self.measures)
        self._local = local

    def run(self, request: OneEye, images: Sequence[Image]) -> ToolOutput:
        import httpx2

        body = {"arguments": request.model_dump(mode="json"), "images": [_base64(image) for image in images]}
        with httpx2.Client(timeout=self.seconds, trust_env=not self._local) as http:
            with http.stream("POST", self.url, json=body) as response:
                response.raise_for_status()
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MOST_BYTES:
                        raise ValueError(f"a reply of more than {MOST_BYTES} bytes")
        return ToolOutput.model_validate(json.loads(content))


class Crop(BaseModel):
    """A box [x, y, w, h] in shares of the image, and what is asked about it."""

    model_config = ConfigDict(extra="forbid")

    box: tuple[float, float, float, float] = (0.25, 0.25, 0.5, 0.5)
    question: str = Field("What is seen here?", max_length=300)


class LookAgain:
    """The model itself on a crop, twice the size. What it says is a quote: a model's words are no evidence for its own
    answer, so no fact comes of it."""

    name = "look_again"
    description = "Crops a box [x, y, w, h] (shares of the image), doubles its size and asks the model about it."
    covers: frozenset[str] = frozenset()
    measures: Mapping[str, tuple[str, ...]] = {}
    input: type[BaseModel] = Crop
    output = ToolOutput

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def run(self, request: Crop, images: Sequence[Image]) -> ToolOutput:
        image = images[0]
        height, width = image.shape[:2]
        x, y, w, h = request.box
        if not (0 <= x < x + w <= 1 and 0 <= y < y + h <= 1):
            raise ValueError("the box lies outside the image")
        mask = np.zeros((height, width), dtype=np.bool_)
        mask[
            int(y * height) : max(int(y * height) + 1, int((y + h) * height)),
            int(x * width) : max(int(x * width) + 1, int((x + w) * width)),
        ] = True
        rows, columns = np.nonzero(mask)
        crop = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        said = self.backend.look(request.question, [np.repeat(np.repeat(crop, 2, 0), 2, 1)])
        return ToolOutput(quote=said, masks={"crop": mask})


def _preprocessing(folder: Path) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
    """Height and width, mean and SD out of a model folder; those of SegFormer where it says nothing."""
    from transformers.utils import cached_file

    try:
        file = cached_file(str(folder), "preprocessor_config.json")
        found = json.loads(Path(str(file)).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    size = found.get("size", 512)
    sides = (size["height"], size["width"]) if isinstance(size, dict) and "height" in size else (512, 512)
    mean, sd = found.get("image_mean", [0.485, 0.456, 0.406]), found.get("image_std", [0.229, 0.224, 0.225])
    return sides, np.array(mean, np.float32), np.array(sd, np.float32)


def _base64(image: Image) -> str:
    from PIL import Image as Picture

    out = io.BytesIO()
    Picture.fromarray(image).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()
