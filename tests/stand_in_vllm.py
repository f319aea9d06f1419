"""What of vLLM is called, and no argument besides, answered by transformers: prompts with one placeholder an image,
greedy, and the log-probability of every token drawn. As vLLM does, it says neither the end token nor a character that
was cut off half-way."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from clinalign.models import load_vlm


@dataclass
class SamplingParams:
    temperature: float
    max_tokens: int
    stop_token_ids: list[int]
    logprobs: int | None = None
    ignore_eos: bool = False
    logit_bias: dict[int, float] | None = None


class StandInVLLM:
    """The module. `off` is added to log-probabilities, `more` to the number of a prompt's tokens, `text` said instead
    of what the tokens are, `without_end` leaves the end token out, `reason` is why an answer ended, `start` fails."""

    SamplingParams = SamplingParams
    __version__ = "0.0"

    def __init__(
        self,
        off: float = 0.0,
        more: int = 0,
        text: str = "",
        without_end: bool = False,
        reason: str = "",
        start: str = "",
    ) -> None:
        self.off, self.more, self.text, self.without_end = off, more, text, without_end
        self.reason, self.start = reason, start
        self.asked: list[int] = []
        self.settings: list[SamplingParams] = []
        self.given: dict[str, Any] = {}

    def LLM(
        self,
        model: str,
        *,
        dtype: str,
        seed: int,
        limit_mm_per_prompt: dict[str, int] | None = None,
        enable_prefix_caching: bool = False,
        gpu_memory_utilization: float = 0.9,
        max_model_len: int | None = None,
    ) -> Any:
        from transformers import LlavaForConditionalGeneration

        if self.start:
            raise ValueError(self.start)
        self.given = {
            "images": limit_mm_per_prompt, "cached": enable_prefix_caching, "memory": gpu_memory_utilization,
            "length": max_model_len, "seed": seed,
        }  # fmt: skip
        self.model = LlavaForConditionalGeneration.from_pretrained(model, dtype=getattr(torch, dtype))
        vlm = load_vlm(model)
        self.images, self.tokenizer = vlm.processor.image_processor, vlm.tokenizer
        return self

    def generate(self, prompts: list[dict[str, Any]], settings: SamplingParams, use_tqdm: bool = True) -> list[Any]:
        self.asked.append(len(prompts))
        self.settings.append(settings)
        return [self._one(prompt, settings) for prompt in prompts]

    def _one(self, prompt: dict[str, Any], settings: SamplingParams) -> Any:
        pictures = prompt.get("multi_modal_data", {}).get("image", [])
        token, shown, count = self.model.config.image_token_id, {}, 0
        if pictures:
            shown = {"pixel_values": self.images(images=pictures, return_tensors="pt")["pixel_values"]}
            count = len(self.model.get_image_features(**shown, return_dict=True).pooler_output[0])
        assert prompt["prompt_token_ids"].count(token) == len(pictures), "one placeholder an image"
        ids = [i for one in prompt["prompt_token_ids"] for i in ([token] * count if one == token else [one])]
        out = self.model.generate(
            input_ids=torch.tensor([ids]), **shown, attention_mask=torch.ones_like(torch.tensor([ids])),
            do_sample=False, max_new_tokens=settings.max_tokens, eos_token_id=settings.stop_token_ids,
            suppress_tokens=list(settings.logit_bias or {}) or None, return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
        drawn = out.sequences[0, len(ids) :].tolist()
        logps = [float(row[0].log_softmax(-1)[i]) + self.off for row, i in zip(out.logits, drawn, strict=True)]
        known = [{i: SimpleNamespace(logprob=value)} for i, value in zip(drawn, logps, strict=True)]
        ended = drawn[-1] in settings.stop_token_ids
        text = self.text or self.tokenizer.decode(drawn[: -1 if ended else None], skip_special_tokens=True)
        said = SimpleNamespace(
            token_ids=drawn[:-1] if ended and self.without_end else drawn,
            logprobs=known,
            text=text.replace("\N{REPLACEMENT CHARACTER}", ""),
            finish_reason=self.reason or ("stop" if ended else "length"),
        )
        return SimpleNamespace(outputs=[said], prompt_token_ids=ids + [0] * self.more)
