"""vLLM in the place of a model's own forward: prompts as token ids with one placeholder an image, answers as token ids.

vLLM expands the placeholders itself; what it made of a prompt is held against what the model here makes of it, and what
it says against the tokenizer here, so that pairs are never made of tokens that are not this model's.
"""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clinalign.errors import UsageError
from clinalign.models.vlm import Generated

NEVER = -100.0
"""The bias of a token that is not to be drawn: the lowest that vLLM takes."""


def library(asked_by: str) -> Any:
    """vLLM itself; `UsageError` where it is not installed."""
    try:
        import vllm
    except ImportError as error:
        raise UsageError(f"{asked_by}: vLLM is not installed (pip install vllm; it needs a GPU)") from error
    return vllm


def check_served(here: bool) -> None:
    """`UsageError` where vLLM is not installed or, if it is to run in this process (`here`), sees no GPU."""
    import torch

    if importlib.util.find_spec("vllm") is None:
        raise UsageError("vLLM is not installed; pip install vllm, or set answer.engine=local")
    if here and not torch.cuda.is_available():
        raise UsageError("vLLM needs a GPU; set answer.engine=local")


def as_given(vlm: Any, prompt: str, images: Sequence[np.ndarray]) -> dict[str, Any]:
    """One prompt as vLLM takes it."""
    from PIL import Image

    text = vlm.prompt_text(prompt, len(images))
    bos = vlm.tokenizer.bos_token
    ids = vlm.tokenizer(text, add_special_tokens=bos is None or not text.startswith(bos))["input_ids"]
    shown = {"multi_modal_data": {"image": [Image.fromarray(image) for image in images]}} if images else {}
    return {"prompt_token_ids": ids} | shown


class Served:
    """A plain model folder in vLLM, on one GPU; common beginnings of prompts are computed once.

    It travels to workers as what it is made of, and starts with the first question, in the process that is asked.
    `images`: most of a prompt; `memory`: the share of the GPU that vLLM takes; `length`: most tokens of a prompt with
    its answer, 0 for as many as the model can place.
    """

    def __init__(self, folder: Path, dtype: str, images: int, memory: float, length: int) -> None:
        self.made_of = (folder, dtype, images, memory, length)
        self._model: Any = None

    @property
    def name(self) -> str:
        """What answers, for the key of an answer: another version may draw other tokens."""
        return f"vllm {library('answer.engine vllm').__version__}"

    def __reduce__(self) -> tuple[Any, ...]:
        return Served, self.made_of

    def __call__(
        self, vlm: Any, prompts: Sequence[tuple[str, Sequence[np.ndarray]]], decoder: Any, longest: int, size: int
    ) -> list[Generated]:
        """Greedy answers of (prompt, images) pairs, in their order, the end token included where it was reached. vLLM
        makes its own batches, so `size` is not looked at, nor is `decoder`: recipes allow greedy alone.

        Raises `UsageError` where vLLM makes another prompt of it than `vlm`, or says it in other tokens.
        """
        engine = library("answer.engine vllm")
        folder, dtype, images, memory, length = self.made_of
        if self._model is None:
            kept: dict[str, Any] = {"limit_mm_per_prompt": {"image": images}} if images else {}
            kept |= {"max_model_len": length} if length else {}
            self._model = engine.LLM(
                model=str(folder),
                dtype=dtype,
                seed=0,
                enable_prefix_caching=True,
                gpu_memory_utilization=memory,
                **kept,
            )
        settings = engine.SamplingParams(
            temperature=0.0,
            max_tokens=longest,
            stop_token_ids=vlm.eos_ids,
            logit_bias=dict.fromkeys(vlm.banned_ids, NEVER) or None,
        )
        said = self._model.generate([as_given(vlm, *prompt) for prompt in prompts], settings, use_tqdm=False)
        return [_checked(vlm, *pair) for pair in zip(prompts, said, strict=True)]

    def close(self) -> None:
        """Gives the GPU back."""
        self._model = None
        gc.collect()


def _checked(vlm: Any, prompt: tuple[str, Sequence[np.ndarray]], said: Any) -> Generated:
    own, theirs = len(vlm.prompt_ids(*prompt)), len(said.prompt_token_ids)
    if own != theirs:
        raise UsageError(
            f"{vlm.name}: vLLM makes {theirs} tokens of a prompt that has {own} here, images included; "
            "set answer.engine=local"
        )
    one = said.outputs[0]
    ids = [int(token) for token in one.token_ids]
    text = vlm.decode(ids)
    if "".join(text.split()) != "".join(one.text.split()):
        raise UsageError(
            f"{vlm.name}: vLLM reads its tokens as '{one.text[:60]}', the tokenizer here as '{text[:60]}'; "
            "set answer.engine=local"
        )
    ended = bool(ids) and ids[-1] in vlm.eos_ids
    if one.finish_reason == "stop" and not ended:
        raise UsageError(f"{vlm.name}: vLLM left out the token that ended an answer; set answer.engine=local")
    return Generated(ids, text, "stop" if ended else "length")
