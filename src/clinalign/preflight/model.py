"""The model, its processor, device and precision, what its family can do, and whether memory and disk will do."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clinalign.errors import RowError, UsageError
from clinalign.folder import device_of, load_shapes_of
from clinalign.preflight.data import Sampled
from clinalign.preflight.finding import Finding, tried
from clinalign.recipe import Recipe
from clinalign.training.options import TrainOptions


def open_model(recipe: Recipe) -> tuple[Any, list[Finding]]:
    """The recipe's model without its weights (None where there is none), and the verdict on device and precision."""
    device, findings = tried("device", "device", lambda: device_of(recipe.device))
    findings += _quantised(recipe, device or "cpu")
    if device is not None:
        findings.append(Finding("ready", "device", "device", f"{device}, {recipe.dtype}"))
    vlm, refused = tried("model", "model", lambda: load_shapes_of(recipe))
    return vlm, findings + refused


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
    found = [
        Finding("ready", "model", "model", f"{recipe.model}: {vlm.family.name}, {_number(count)} parameters, {way}")
    ]
    refused: list[RowError] = []
    for example, images in sampled.shown if sampled is not None else ():
        try:
            vlm.prompt_ids(example.prompt, images)
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
    if recipe.evaluate.grounding and not vlm.family.known and not vlm.undecided:
        text = f"attention is not measured for a family that is not known ({vlm.family.name}); leave it out"
        found.append(Finding("refused", "grounding", "evaluate.grounding", text))
    found += _image_parts(recipe, vlm)
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


def _image_parts(recipe: Recipe, vlm: Any) -> list[Finding]:
    """Projector and tower that are to train: the model has them, and a way to pass gradients to them."""
    from clinalign.models.adapter import image_parameters

    found: list[Finding] = []
    systems = {("align" if n == 0 else f"compare.{s}"): recipe.system(s) for n, s in enumerate(recipe.systems())}
    for prefix, options in (systems | ({"warmup": recipe.warmup} if recipe.warmup is not None else {})).items():
        if not options.image_parts:
            continue
        field = f"{prefix}.train"
        found += tried("training", field, partial(image_parameters, vlm.model, options.image_parts))[1]
        if vlm.unpacked and not vlm.undecided:
            text = "projector or tower needs the packed forward; leave it out, or set unpacked=false"
            found.append(Finding("refused", "training", field, text))
        elif vlm.undecided:
            text = f"whether a {vlm.family.name} model is packed, as this needs, shows when it is loaded"
            found.append(Finding("warning", "training", field, text))
    return found


def decoder_findings(recipe: Recipe, vlm: Any) -> list[Finding]:
    """Whether the decoders run on the family, and have what they need."""
    from clinalign.decoding.decoders import check
    from clinalign.decoding.options import CAI

    def ready(options: Any) -> bool:
        check(vlm, options)
        if isinstance(options, CAI):
            _calibration(options.calibration)
        return True

    found: list[Finding] = []
    for number, options in enumerate([recipe.evaluate.decoder, *recipe.evaluate.decoders]):
        field = "evaluate.decoders" if number else "evaluate.decoder"
        if vlm.undecided and options.name != "greedy":
            text = f"{options.name}: whether it runs on {vlm.family.name} shows when the model is loaded"
            found.append(Finding("warning", "decoder", field, text))
            continue
        done, findings = tried("decoder", field, partial(ready, options))
        text = f"{options.name} runs on {vlm.family.name}"
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


ANSWERS = 64
"""Tokens of two short answers."""
COPIES = 3
"""An image, its corrupted copy and its control."""
LEAST_FREE = 1 << 28
"""Bytes for tables, figures and the page."""
RESERVE = 0.9
"""Share of the device that a run can count on."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes in memory: weights, gradients with the optimiser's moments, activations of the largest micro-batch."""

    weights: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.optimizer + self.activations


def memory_findings(recipe: Recipe, vlm: Any, sampled: Sampled | None) -> list[Finding]:
    """What the hungriest training needs beside what the device has."""
    systems = [recipe.system(label) for label in recipe.systems()]
    needs, options = max(((needed(recipe, vlm, one, sampled), one) for one in systems), key=lambda pair: pair[0].total)
    there = device_memory(recipe.device)
    text = (
        f"about {_gb(needs.total)} to train (weights {_gb(needs.weights)}, optimizer {_gb(needs.optimizer)}, "
        f"activations {_gb(needs.activations)}) of {_gb(there)}"
    )
    if needs.weights > there:
        return [
            Finding("refused", "memory", "model", f"{text}; take a smaller model, dtype=bfloat16 or another device")
        ]
    if needs.total > RESERVE * there:
        smaller = "align.micro_batch=1" if (options.micro_batch or options.batch) > 1 else "a smaller align.lora.r"
        return [Finding("warning", "memory", "align", f"{text}; try {smaller}, align.gradient_checkpointing=true")]
    return [Finding("ready", "memory", "align", text)]


def needed(recipe: Recipe, vlm: Any, options: TrainOptions, sampled: Sampled | None) -> Needs:
    """Bytes for one system, from shapes alone."""
    from clinalign.models.load import adapter_size
    from clinalign.training.estimate import activation_bytes

    weights = sum(value.numel() * value.element_size() for value in vlm.model.parameters())
    if recipe.quantize == "4bit":
        weights //= 2 * vlm.model.dtype.itemsize
    if options.tune == "full":
        trained = sum(value.numel() for value in vlm.language_model.parameters()) + vlm.head.weight.numel()
        optimizer = trained * (2 * 4 + vlm.model.dtype.itemsize)
    else:
        optimizer = adapter_size(vlm, options.lora.r) * (2 * 4 + 2 * 4)  # the adapter itself is in float32
    tokens = _longest(vlm, sampled) * (options.micro_batch or options.batch)
    return Needs(weights, optimizer, activation_bytes(vlm.model, tokens, options))


def _longest(vlm: Any, sampled: Sampled | None) -> int:
    """Tokens of the sample's longest prompt, with both answers."""
    shown = sampled.shown if sampled is not None else []
    lengths = []
    for example, images in shown:
        try:
            lengths.append(len(vlm.prompt_ids(example.prompt, images)))
        except Exception:  # what this row's error is, the model's finding says
            continue
    return max(lengths, default=ANSWERS) + ANSWERS


def lengths(vlm: Any, sampled: Sampled | None) -> tuple[float, float]:
    """Mean tokens of the sample's prompts, and of its true answers with their end."""
    shown = sampled.shown if sampled is not None else []
    prompts, answers = [], []
    for example, images in shown:
        try:
            prompts.append(len(vlm.prompt_ids(example.prompt, images)))
        except RowError:
            continue
        answers.append(1 + len(vlm.tokenizer(example.full or example.answer, add_special_tokens=False)["input_ids"]))
    return (sum(prompts) / len(prompts), sum(answers) / len(answers)) if prompts else (ANSWERS, ANSWERS / 2)


def device_memory(name: str) -> int:
    """Bytes of the device that a recipe names; on a CPU the machine's memory, or what its control group allows."""
    try:
        device = device_of(name)
    except UsageError:
        device = "cpu"
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    here = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(here, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError):  # no such group, or "max"
        return here


def disk_finding(recipe: Recipe, out: Path, vlm: Any, sampled: Sampled | None) -> Finding:
    """Space for adapters with their checkpoints and for the copies of the images."""
    place = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    need = LEAST_FREE + _adapters(recipe, vlm)
    if sampled is not None and sampled.whole:
        need += COPIES * sampled.image_bytes
    text = f"{place}: {_gb(free)} free, at least {_gb(need)} needed"
    if free < need:
        return Finding("refused", "disk", "--out", f"{text}; free some space or choose another --out")
    return Finding("ready", "disk", "--out", text)


def _adapters(recipe: Recipe, vlm: Any) -> int:
    """An adapter and one checkpoint (it and two moments) a system."""
    if vlm is None:
        return 0
    from clinalign.models.load import adapter_size

    total = 0
    for options in (recipe.system(label) for label in recipe.systems()):
        full = options.tune == "full"
        size = sum(v.numel() for v in vlm.language_model.parameters()) if full else adapter_size(vlm, options.lora.r)
        total += size * 4 * 4
    return total


def _gb(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
