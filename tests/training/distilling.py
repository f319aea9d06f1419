"""Tiny teachers and distilling steps for the tests of MEDALIGN."""

from __future__ import annotations

from typing import Any

import numpy as np
import tiny
import torch
from packing import read, sample
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, SiglipVisionConfig, SiglipVisionModel

from clinalign.models import VLM
from clinalign.models.features import Features
from clinalign.models.teachers import ClipTeacher
from clinalign.objectives import METHODS, LossCoefficients
from clinalign.training.distill import Distill, new_projection
from clinalign.training.encode import Sample
from clinalign.training.options import DistillOptions
from clinalign.training.step import PackedSteps
from clinalign.training.teacher import Teacher

FAMILIES = ("llava", "qwen2_5_vl", "qwen3_vl")


def clip(size: int = 32, patch: int = 8, seed: int = 3) -> ClipTeacher:
    """A random CLIP with text; its grid is size / patch."""
    tok = tiny.tokenizer()
    shared = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    vision = shared | {"num_hidden_layers": 2, "image_size": size, "patch_size": patch}
    special = {"bos_token_id": tok.bos_token_id, "eos_token_id": len(tok) - 1, "pad_token_id": tok.pad_token_id}
    text = shared | {"num_hidden_layers": 1, "vocab_size": len(tok), "max_position_embeddings": 64} | special
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=12))
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1:
                value *= 8
    tok.padding_side, tok.model_max_length = "right", 64
    return ClipTeacher(model, CLIPImageProcessorPil(), tok, name="tiny-clip")


def siglip(head: bool = True) -> ClipTeacher:
    """A random SigLIP tower."""
    torch.manual_seed(5)
    config = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        vision_use_head=head,
    )  # fmt: skip
    return ClipTeacher(SiglipVisionModel(config), CLIPImageProcessorPil(), name="tiny-siglip")


def student(family: str = "llava", *, seed: int = 0, moved: bool = True, **options: Any) -> tuple[VLM, DistillOptions]:
    """A tiny model with LoRA and W, both away from where they start if `moved`."""
    vlm, chosen = tiny.tiny(family, seed), DistillOptions(**options)
    vlm.attach_lora(r=4, alpha=8, dropout=0.0)
    vlm.attach_projection(new_projection(vlm, chosen, 0))
    if moved:
        tiny.perturb(vlm)
    return vlm, chosen


def samples(vlm: VLM, counts: tuple[int, ...] = (1, 0, 2), **settings: Any) -> list[Sample]:
    """Pairs with so many images each and prompts of different lengths."""
    rng, words = np.random.default_rng(0), "Where is the nodule and how large is it? "
    prompts = [words * (1 + i % 3) for i in range(len(counts))]
    return [sample(vlm, i, rng, images=n, prompt=p, **settings) for i, (n, p) in enumerate(zip(counts, prompts))]


def distilling(
    vlm: VLM,
    chosen: DistillOptions,
    given: list[Sample],
    method: str = "sft",
    teacher_model: Any = None,
    **settings: Any,
) -> PackedSteps:
    """The packed steps of a method with the distillation beside it."""
    features = Features(vlm, read(vlm))
    teacher = Teacher(teacher_model or clip(), features.read, chosen)
    teacher.prepare([(key, "") for s in given for key in s.images])
    distill = Distill(vlm, features, teacher, chosen, {})
    return PackedSteps(vlm, given, METHODS[method], LossCoefficients(), features, distill=distill, **settings)


def gradients(vlm: VLM, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradient of everything that trains; zeros where there is none."""
    named = vlm.trainable()
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)}
