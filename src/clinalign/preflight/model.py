"""The model, its processor, device and precision, and what its family can do."""

from __future__ import annotations

from functools import partial
from typing import Any

from clinalign.errors import RowError, UsageError
from clinalign.folder import device_of
from clinalign.preflight.data import Sampled
from clinalign.preflight.finding import Finding, tried
from clinalign.recipe import Recipe


def open_model(recipe: Recipe) -> tuple[Any, list[Finding]]:
    """The recipe's model without its weights (None where there is none), and the verdict on device and precision."""
    device, findings = tried("device", "device", lambda: device_of(recipe.device))
    findings += _quantised(recipe, device or "cpu")
    if device is not None:
        findings.append(Finding("ready", "device", "device", f"{device}, {recipe.dtype}"))
    vlm, refused = tried("model", "model", lambda: _shapes(recipe))
    return vlm, findings + refused


def _shapes(recipe: Recipe) -> Any:
    from clinalign.models.shapes import load_shapes

    return load_shapes(recipe.model, dtype=recipe.dtype, processor=recipe.processor, unpacked=recipe.unpacked)


def _quantised(recipe: Recipe, device: str) -> list[Finding]:
    """Whether 4-bit weights can be had here: as loading decides it."""
    if recipe.quantize == "none":
        return []
    from clinalign.models.load import DTYPES, _quantization

    return tried("device", "quantize", lambda: _quantization(recipe.quantize, DTYPES[recipe.dtype], device))[1]


def model_findings(recipe: Recipe, vlm: Any, sampled: Sampled | None) -> list[Finding]:
    """What the model is, and whether it takes the sample's questions and images."""
    count = sum(value.numel() for value in vlm.model.parameters())
    way = "separate passes (unpacked)" if vlm.unpacked else "packed"
    found = [Finding("ready", "model", "model", f"{recipe.model}: {vlm.family}, {_number(count)} parameters, {way}")]
    refused: list[RowError] = []
    for example, images in sampled.shown if sampled is not None else ():
        try:
            vlm.prompt_ids(example.question, images)
        except RowError as error:
            refused.append(error)
    total = len(sampled.shown) if sampled is not None else 0
    if refused:
        every = len(refused) == total
        text = f"{len(refused)} of {total} sampled questions do not become a prompt: {refused[0]}"
        found.append(Finding("refused" if every else "warning", "model", "data", text))
    return found + _sightless(recipe, vlm)


def _sightless(recipe: Recipe, vlm: Any) -> list[Finding]:
    """Measurements and methods that read the insides of a family which is not known or runs unpacked."""
    found = []
    if recipe.evaluate.grounding and not vlm.functions.known:
        text = f"attention is not measured for a family that is not known ({vlm.family}); leave it out"
        found.append(Finding("refused", "grounding", "evaluate.grounding", text))
    for label in recipe.systems():
        options = recipe.system(label)
        if options.distill is None:
            continue
        field = "align.distill" if options is recipe.align else f"compare.{label}.distill"
        if vlm.unpacked:
            text = "reads layers of the packed forward; leave it out, or set unpacked=false with a known family"
            found.append(Finding("refused", "teacher", field, text))
            continue
        count = vlm.language_model.config.num_hidden_layers
        if any(not 0 <= layer < count for layer in options.distill.layers):
            text = f"{options.distill.layers}, but the model has layers 0 to {count - 1}; name some of these"
            found.append(Finding("refused", "teacher", f"{field}.layers", text))
    return found


def decoder_findings(recipe: Recipe, vlm: Any) -> list[Finding]:
    """Whether the decoders run on the family, and have what they need."""
    from clinalign.decoding.decoders import check

    def ready(options: Any) -> bool:
        check(vlm, options.name)
        if options.name == "cai":
            _calibration(options.calibration)
        return True

    found: list[Finding] = []
    for number, options in enumerate([recipe.evaluate.decoder, *recipe.evaluate.decoders]):
        field = "evaluate.decoders" if number else "evaluate.decoder"
        done, findings = tried("decoder", field, partial(ready, options))
        text = f"{options.name} runs on {vlm.family}"
        found += findings + ([Finding("ready", "decoder", field, text)] if done else [])
    return found


def _calibration(name: str) -> None:
    from pathlib import Path

    from clinalign.decoding.cai import Calibration

    if not name:
        raise UsageError("decoder 'cai': no calibration; make one with decoding.cai.calibrate, and name its file")
    Calibration.load(Path(name))


def _number(count: int) -> str:
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f} {letter}"
    return str(count)
