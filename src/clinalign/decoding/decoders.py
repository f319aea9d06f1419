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

import torch
from torch import Tensor
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from clinalign import extensions
from clinalign.decoding.beam import beam
from clinalign.decoding.loop import DecodingSteps, Prompt, PromptBatch, generated, run, start
from clinalign.decoding.needs import lacking
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
    if why := lacking(vlm, options.needs):
        raise UsageError(f"{vlm.name}: decoder '{name}' does not work with family '{vlm.family.name}': {why}")
    function_of(options)


def custom_generate(vlm: VLM, decoder: str | DecoderOptions) -> Callable[..., Tensor]:
    """What to give to `generate` as `custom_generate`; `generate` then also takes `prompts`, the (text, images) pairs
    that its inputs were made of: it has encoded the images by then and dropped their pixels.

    The result is what `generate` gives: input ids and answers [B, L + T], padded with the padding token. Raises
    `UsageError` where the ids are not those of the prompts, and for processors or criteria of `generate` that a decoder
    would ignore.
    """
    options = as_options(decoder)
    check(vlm, options)

    def run(
        model: Any,
        input_ids: Tensor,
        logits_processor: Sequence[Any],
        stopping_criteria: Sequence[Any],
        generation_config: Any,
        prompts: Sequence[Prompt] | None = None,
        **given: Any,
    ) -> Tensor:
        _refuse(logits_processor, stopping_criteria, generation_config)
        if prompts is None or len(prompts) != len(input_ids):
            raise UsageError("custom_generate: give generate(..., prompts=[(text, images), ...]), one for each row")
        batch = start(vlm, prompts)
        for i, (row, ids) in enumerate(zip(input_ids.tolist(), batch.ids, strict=True)):
            if row[len(row) - len(ids) :] != ids or any(t != vlm.pad_id for t in row[: len(row) - len(ids)]):
                raise UsageError(
                    f"custom_generate: row {i} of input_ids is not prompt {i}; pad on the left, same template"
                )
        answers = answer(batch, options, generation_config.max_length - input_ids.shape[1])
        longest = max(map(len, answers))
        padded = [row + [vlm.pad_id] * (longest - len(row)) for row in answers]
        return torch.cat([input_ids, torch.tensor(padded, device=input_ids.device, dtype=input_ids.dtype)], dim=1)

    return run


def _refuse(processors: Sequence[Any], criteria: Sequence[Any], config: Any) -> None:
    strange = [type(p).__name__ for p in processors]
    strange += [type(c).__name__ for c in criteria if not isinstance(c, MaxLengthCriteria | EosTokenCriteria)]
    if config.num_beams > 1 or config.do_sample:
        strange.append("num_beams" if config.num_beams > 1 else "do_sample")
    if strange:
        raise UsageError(f"custom_generate: {', '.join(strange)} would be ignored; set it in the decoder's options")
