"""Any decoder inside transformers' own `generate`.

inputs = vlm.processor(...)
vlm.model.generate(**inputs, max_new_tokens=64, custom_generate=custom_generate(vlm, "vcd"), prompts=[(text, images)])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from clinalign.decoding.decoders import answer, check
from clinalign.decoding.loop import Prompt, start
from clinalign.decoding.options import DecoderOptions, as_options
from clinalign.errors import UsageError
from clinalign.models import VLM


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
