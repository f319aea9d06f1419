"""One call for all decoders.

    decode(vlm, prompts, "vcd", max_new_tokens=64)                # defaults
    decode(vlm, prompts, VCD(alpha=0.5), max_new_tokens=64)       # options.py documents them

`prompts` is a list of (prompt, images); the result is one generation a prompt, in the same order, with `token_ids` (EOS
included), `text` and `finish_reason` (stop or length).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clinalign.decoding.avisc import avisc
from clinalign.decoding.beam import beam
from clinalign.decoding.cai import cai
from clinalign.decoding.damro import damro
from clinalign.decoding.greedy import greedy
from clinalign.decoding.imccd import imccd
from clinalign.decoding.loop import Batch, Decoder, Prompt, generated, run, start
from clinalign.decoding.m3id import m3id
from clinalign.decoding.med_vcd import med_vcd
from clinalign.decoding.options import AnyDecoder, as_options
from clinalign.decoding.pai import pai
from clinalign.decoding.second import second
from clinalign.decoding.vcd import vcd
from clinalign.decoding.vhr import vhr
from clinalign.errors import UsageError
from clinalign.models import VLM
from clinalign.models.vlm import Generated

DECODERS: dict[str, Decoder] = {
    "greedy": greedy,
    "sample": greedy,
    "vcd": vcd,
    "m3id": m3id,
    "pai": pai,
    "avisc": avisc,
    "damro": damro,
    "vhr": vhr,
    "imccd": imccd,
    "med_vcd": med_vcd,
    "cai": cai,
    "second": second,
}
"""Every decoder but beam search, which keeps several sequences a prompt and has a loop of its own."""

MULTIMODAL = ("llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")
FAMILIES: dict[str, tuple[str, ...]] = {name: MULTIMODAL for name in DECODERS if name not in ("greedy", "sample")}
FAMILIES["damro"] = FAMILIES["second"] = ("llava",)
"""What a decoder has been proved on; greedy, sampling and beam search run on every family."""
MISSING = {
    "damro": "its vision tower has no class token to ask",
    "second": "its image tokens have positions in a whole grid of one size, and a selection of patches has none",
}


def decode(
    vlm: VLM,
    prompts: Sequence[Prompt],
    decoder: str | AnyDecoder = "greedy",
    *,
    max_new_tokens: int = 64,
    batch_size: int = 8,
) -> list[Generated]:
    """Answers to (prompt, images) pairs, in their order. Raises `UsageError` for a pair of decoder and family that does
    not go together; nothing falls back to greedy."""
    options = as_options(decoder)
    check(vlm, options.name)
    if not vlm.family.known:
        return vlm.generate(prompts, max_new_tokens=max_new_tokens)
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i][1]), len(prompts[i][0])))
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        with vlm.evaluating():
            batch = start(vlm, [prompts[i] for i in chosen])
            for i, ids in zip(chosen, answer(batch, options, max_new_tokens), strict=True):
                answers[i] = ids
    return [generated(vlm, ids) for ids in answers]


def answer(batch: Batch, options: Any, max_new_tokens: int) -> list[list[int]]:
    """Token ids of one batch's answers."""
    if options.name == "beam":
        return beam(batch, options, max_new_tokens)
    return run(DECODERS[options.name], batch, options, max_new_tokens)


def check(vlm: VLM, name: str) -> None:
    """Raises `UsageError` where a decoder does not work with the model's family, saying what is missing."""
    if not vlm.family.known and name != "greedy":
        raise UsageError(f"{vlm.name}: decoder '{name}' needs a family that is known; use decoder greedy")
    if name in MISSING and not vlm.family.geometry:
        why = "which part of an image its image tokens stand for is not known here"
        raise UsageError(f"{vlm.name}: decoder '{name}' does not work with a {vlm.family.name} model: {why}")
    families = FAMILIES.get(name)
    if families is not None and vlm.family.name not in families:
        why = MISSING.get(name, "it has not been proved there: add the family to decoding.FAMILIES with its tests")
        raise UsageError(f"{vlm.name}: decoder '{name}' does not work with family '{vlm.family.name}': {why}")
