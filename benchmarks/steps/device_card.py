"""Where `../gpu.py` measures, at which shape and until when; the environment that it finds."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from child import Meter
from qwen3 import model_of, write_processor
from step import LORA, QWEN, SHAPES

from clinalign.models import VLM
from clinalign.models.families import FAMILIES
from clinalign.models.processors import of_family

Found = Iterator[tuple[str, Any]]
"""What a part gives: names and values, written as they come."""
PEAK = {
    "B200": 2250, "GH200": 989, "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "A10": 125, "L40S": 362,
    "L40": 181, "L4": 121, "RTX 4090": 165, "RTX 6000 Ada": 364,
}  # fmt: skip
"""TFLOP/s of dense bf16 products by what a card's name holds, from the vendor's data sheets; the first that fits."""
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "torchvision", "triton", "flash-attn", "bitsandbytes")
GB = 2**30


@dataclass
class Card:
    """Where it runs, at which shape, until when."""

    name: str
    device: str
    work: Path
    deadline: float
    rounds: int = 3
    gradients: bool = True
    """Whether gradients are written and compared: at the first shape alone, since they take a GB a variant."""

    @property
    def tiny(self) -> bool:
        return self.name == "tiny"

    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    def empty(self) -> None:
        """Gives cached memory back to the card."""
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def shape(self, image_tokens: int = 0, answer: int = 0, **more: Any) -> dict[str, Any]:
        """The full shape with so many image tokens and answers so long; of the tiny one there is but one."""
        found = SHAPES["tiny_qwen"] if self.tiny else QWEN | {"answer": 120, "fork": 60}
        if image_tokens and not self.tiny:
            found |= {"image_size": int(image_tokens**0.5) * 2 * found["patch"], "answer": answer, "fork": answer // 2}
        return {"lora": LORA, **found, "device": self.device, **more}

    def few_layers(self, dtype: str) -> dict[str, Any]:
        """Full width, four layers."""
        layers = {} if self.tiny else {"language": [4, 2560], "vision": [4, 1024], "deepstack": [0, 1, 2], "batch": 2}
        return self.shape(256, 40, **layers, dtype=dtype)

    def load(self, shape: dict[str, Any], model: Any = None) -> VLM:
        """The library's model around one with random weights; nothing goes over the disk but the processor."""
        folder, family = self.work / "model", FAMILIES["qwen3_vl"]
        write_processor(folder, shape)
        model = (model_of(shape) if model is None else model).eval()
        model.config.save_pretrained(folder)
        return VLM(model, of_family(str(folder), str(folder), family, model.config), family=family, name="random")


def environment(card: Card) -> Found:
    """The card, the versions, and what its products really reach."""
    versions = {name: metadata.version(name) for name in PACKAGES if _installed(name)}
    yield "versions", versions | {"python": platform.python_version(), "system": platform.platform()}
    if card.device == "cuda":
        about = torch.cuda.get_device_properties(0)
        yield (
            "card",
            {
                "name": about.name,
                "gb": round(about.total_memory / GB, 1),
                "capability": list(torch.cuda.get_device_capability(0)),
                "cuda": torch.version.cuda,
                "bf16": torch.cuda.is_bf16_supported(),
                "peak_tflops": peak(about.name),
            },
        )
    else:
        yield "card", {"name": platform.processor() or platform.machine(), "peak_tflops": None}
    size = 256 if card.tiny else 8192
    a, b = (torch.randn(size, size, device=card.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = clock(card, lambda: a @ b, 5)
    yield "product_tflops", round(2 * size**3 / seconds / 1e12, 3)


def peak(name: str) -> int | None:
    """TFLOP/s that the vendor gives for a card, None for one that is not in the table."""
    return next((value for part, value in PEAK.items() if part in name), None)


def clock(card: Card, run: Callable[[], Any], times: int) -> float:
    """Median seconds of a call, after one that is not counted."""
    meter, found = Meter(card.device), []
    run()
    for _ in range(times):
        began = meter.now()
        run()
        found.append(meter.now() - began)
    return sorted(found)[len(found) // 2]


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
