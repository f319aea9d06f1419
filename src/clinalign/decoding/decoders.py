"""One call for all decoders.

    decode(vlm, prompts, "vcd", max_new_tokens=64)                # defaults
    decode(vlm, prompts, VCD(alpha=0.5), max_new_tokens=64)       # options.py documents them

`prompts` is a list of (prompt, images); the result is one generation a prompt, in the same order, with `token_ids` (EOS
included), `text` and `finish_reason` (stop or length).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from clinalign import extensions
from clinalign.decoding.beam import beam
from clinalign.decoding.loop import DecodingSteps, Prompt, PromptBatch, generated, run, start
from clinalign.decoding.options import DecoderOptions, as_options
from clinalign.errors import UsageError
from clinalign.models import VLM
from clinalign.models.vlm import Generated

Decoder = Callable[[PromptBatch, Any], DecodingSteps]


def decode(
    vlm: VLM,
    prompts: Sequence[Prompt],
    decoder: str | DecoderOptions = "greedy",
    *,
    max_new_tokens: int = 64,
    batch_size: int = 8,
) -> list[Generated]:
    """Answers to (prompt, images) pairs, in their order. Raises `UsageError` for a pair of decoder and family that does
    not go together; nothing falls back to greedy."""
    options = as_options(decoder)
    check(vlm, options)
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


def answer(batch: PromptBatch, options: Any, max_new_tokens: int) -> list[list[int]]:
    """Token ids of one batch's answers."""
    if options.name == "beam":
        return beam(batch, options, max_new_tokens)
    return run(function_of(options), batch, options, max_new_tokens)


def function_of(options: DecoderOptions) -> Decoder:
    """The function of a decoder: in the file of its name here, or what `module:name` names; `UsageError` where that
    cannot be had. (Beam search's has a loop of its own.)"""
    if extensions.is_own(options.name):
        own: Decoder = extensions.load(options.name, "decoder")
        if not callable(own):
            raise UsageError(f"decoder '{options.name}': a {type(own).__name__}, not a function (batch, options)")
        return own
    file = options.file or options.name
    decoder: Decoder = getattr(import_module(f"clinalign.decoding.{file}"), file)
    return decoder


def check(vlm: VLM, options: DecoderOptions) -> None:
    """Raises `UsageError` where a decoder does not work with the model's family, saying what is missing, or where one
    of the user's own cannot be had."""
    name = options.name
    if not vlm.family.known and name != "greedy":
        raise UsageError(f"{vlm.name}: decoder '{name}' needs a family that is known; use decoder greedy")
    if options.missing and not vlm.family.geometry:
        why = "which part of an image its image tokens stand for is not known here"
        raise UsageError(f"{vlm.name}: decoder '{name}' does not work with a {vlm.family.name} model: {why}")
    if options.families and vlm.family.name not in options.families:
        why = options.missing or "it has not been proved there: add the family to its `families` with its tests"
        raise UsageError(f"{vlm.name}: decoder '{name}' does not work with family '{vlm.family.name}': {why}")
    function_of(options)
