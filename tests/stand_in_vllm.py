"""What of vLLM is called, answered by transformers: prompts with one placeholder an image, greedy, and the
log-probability of every token drawn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from clinalign.models import load_vlm


class StandInVLLM:
    """The module. `off` is added to log-probabilities, `more` to the number of a prompt's tokens, `text` said instead
    of what the tokens are, and `without_end` leaves the end token out."""

    SamplingParams = SimpleNamespace
    __version__ = "0.0"

    def __init__(self, off: float = 0.0, more: int = 0, text: str = "", without_end: bool = False) -> None:
        self.off, self.more, self.text, self.without_end = off, more, text, without_end
        self.asked: list[int] = []
        self.given: dict[str, Any] = {}

    def LLM(self, model: str, *, dtype: str, **given: Any) -> Any:
        from transformers import LlavaForConditionalGeneration

        self.given = given
        self.model = LlavaForConditionalGeneration.from_pretrained(model, dtype=getattr(torch, dtype))
        vlm = load_vlm(model)
        self.images, self.tokenizer = vlm.processor.image_processor, vlm.tokenizer
        return self

    def generate(self, prompts: list[dict[str, Any]], settings: Any, use_tqdm: bool = True) -> list[Any]:
        self.asked.append(len(prompts))
        return [self._one(prompt, settings) for prompt in prompts]

    def _one(self, prompt: dict[str, Any], settings: Any) -> Any:
        pictures = prompt["multi_modal_data"]["image"]
        pixels = self.images(images=pictures, return_tensors="pt")["pixel_values"]
        token = self.model.config.image_token_id
        count = len(self.model.get_image_features(pixels, return_dict=True).pooler_output[0])
        assert prompt["prompt_token_ids"].count(token) == len(pictures), "one placeholder an image"
        ids = [i for one in prompt["prompt_token_ids"] for i in ([token] * count if one == token else [one])]
        never = list(getattr(settings, "logit_bias", None) or {})
        out = self.model.generate(
            input_ids=torch.tensor([ids]), pixel_values=pixels, attention_mask=torch.ones_like(torch.tensor([ids])),
            do_sample=False, max_new_tokens=settings.max_tokens, eos_token_id=settings.stop_token_ids,
            suppress_tokens=never or None, return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
        drawn = out.sequences[0, len(ids) :].tolist()
        logps = [float(row[0].log_softmax(-1)[i]) + self.off for row, i in zip(out.logits, drawn, strict=True)]
        known = [{i: SimpleNamespace(logprob=value)} for i, value in zip(drawn, logps, strict=True)]
        ended = drawn[-1] in settings.stop_token_ids
        text = self.text or self.tokenizer.decode(drawn, skip_special_tokens=True)
        said = SimpleNamespace(
            token_ids=drawn[:-1] if ended and self.without_end else drawn,
            logprobs=known,
            text=text,
            finish_reason="stop" if ended else "length",
        )
        return SimpleNamespace(outputs=[said], prompt_token_ids=ids + [0] * self.more)
