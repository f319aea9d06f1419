"""vLLM in the place of a model's own forward: prompts as token ids with one placeholder an image, answers as token ids.

vLLM expands the placeholders itself; how many tokens it made of a prompt is held against the model here, and what it
says against the tokenizer here, so that pairs are never made of tokens that are not this model's.
"""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from clinalign.errors import UsageError
from clinalign.models.memory import release
from clinalign.models.vlm import Generated

NEVER = -100.0
"""The bias of a token that is not to be drawn."""
BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a character reads as that was cut off half-way; vLLM holds it back."""
LOCAL = "set answer.engine=local"


def library(asked_by: str) -> Any:
    """vLLM itself; `UsageError` where it is not installed."""
    # torch may have looked for GPUs before, after which a forked engine cannot
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    try:
        import vllm
    except ImportError as error:
        raise UsageError(f"{asked_by}: vLLM is not installed (pip install vllm; it needs a GPU)") from error
    return vllm


def check_served(here: bool) -> None:
    """`UsageError` where vLLM is not installed or, if it is to run in this process (`here`), sees no GPU."""
    import torch

    if importlib.util.find_spec("vllm") is None:
        raise UsageError(f"vLLM is not installed; pip install vllm, or {LOCAL}")
    if here and not torch.cuda.is_available():
        raise UsageError(f"vLLM needs a GPU; {LOCAL}")


def as_given(vlm: Any, prompt: str, images: Sequence[np.ndarray]) -> dict[str, Any]:
    """One prompt as vLLM takes it."""
    from PIL import Image

    text = vlm.prompt_text(prompt, len(images))
    bos = vlm.tokenizer.bos_token
    ids = vlm.tokenizer(text, add_special_tokens=bos is None or not text.startswith(bos))["input_ids"]
    shown = {"multi_modal_data": {"image": [Image.fromarray(image) for image in images]}} if images else {}
    return {"prompt_token_ids": ids} | shown


class Served:
    """A plain model folder (or a hub's name) in vLLM, on one GPU; common beginnings of prompts are computed once.

    It travels to workers as what it is made of, and starts with the first question, in the process that is asked.
    `images`: most of a prompt; `memory`: the share of the GPU that vLLM takes; `length`: most tokens of a prompt with
    its answer, 0 for as many as the model can place.
    """

    def __init__(self, source: str, dtype: str, images: int, memory: float, length: int) -> None:
        self.made_of = (source, dtype, images, memory, length)
        self._engine: Any = None

    @property
    def name(self) -> str:
        """What answers, for the key of an answer: another version may draw other tokens."""
        return f"vllm {library('answer.engine vllm').__version__}"

    def __reduce__(self) -> tuple[Any, ...]:
        return Served, self.made_of

    def __call__(
        self, vlm: Any, prompts: Sequence[tuple[str, Sequence[np.ndarray]]], decoder: Any, longest: int
    ) -> list[Generated]:
        """Greedy answers of (prompt, images) pairs, in their order, the end token included where it was reached.
        `decoder` is not looked at: recipes allow greedy alone.

        Raises `UsageError` where vLLM does not start, makes another prompt of it than `vlm`, or says it in other
        tokens.
        """
        length = self.made_of[-1]
        own = [len(vlm.prompt_ids(*prompt)) for prompt in prompts]
        if length and max(own) >= length:
            raise UsageError(f"a prompt has {max(own)} tokens, images included; raise answer.vllm_length ({length})")
        settings = library("answer.engine vllm").SamplingParams(
            temperature=0.0,
            max_tokens=longest,
            ignore_eos=True,  # where an answer ends the model here says, not the folder's generation_config.json
            stop_token_ids=vlm.eos_ids,
            logit_bias=dict.fromkeys(vlm.banned_ids, NEVER) or None,
        )
        given = [as_given(vlm, *prompt) for prompt in prompts]
        said = self._started().generate(given, settings, use_tqdm=False)
        return [_checked(vlm, *one, longest) for one in zip(own, said, strict=True)]

    def _started(self) -> Any:
        if self._engine is None:
            source, dtype, images, memory, length = self.made_of
            release()  # what a training before it left cached
            try:
                self._engine = library("answer.engine vllm").LLM(
                    model=source,
                    dtype=dtype,
                    seed=0,
                    enable_prefix_caching=True,
                    gpu_memory_utilization=memory,
                    limit_mm_per_prompt={"image": images},
                    **({"max_model_len": length} if length else {}),
                )
            except (RuntimeError, ValueError) as error:
                raise UsageError(
                    f"{source}: vLLM does not start ({error}); lower answer.vllm_memory ({memory:g}) where the GPU is "
                    f"not free, set answer.vllm_length where its cache is too small, or {LOCAL}"
                ) from error
        return self._engine

    def close(self) -> None:
        """Gives the GPU back."""
        self._engine = None
        gc.collect()


def _checked(vlm: Any, own: int, said: Any, longest: int) -> Generated:
    """An answer of vLLM to a prompt of `own` tokens as one of the model's own."""
    if own != len(said.prompt_token_ids):
        raise UsageError(
            f"{vlm.name}: vLLM makes {len(said.prompt_token_ids)} tokens of a prompt that has {own} here, images "
            f"included; set tiles=true where the model reads tiles, or {LOCAL}"
        )
    (one,) = said.outputs
    ids = [int(token) for token in one.token_ids]
    ended = bool(ids) and ids[-1] in vlm.eos_ids
    if not ended and (one.finish_reason != "length" or len(ids) < longest):
        why = (
            "without its end token" if one.finish_reason == "stop" else f"after {len(ids)} tokens ({one.finish_reason})"
        )
        raise UsageError(
            f"{vlm.name}: vLLM ended an answer {why}; raise answer.vllm_length where it is set, or {LOCAL}"
        )
    text = vlm.decode(ids)
    # the end may be a word of its own, which vLLM never says
    if _bare(one.text) not in (_bare(text), _bare(vlm.decode(ids[:-1] if ended else ids))):
        raise UsageError(
            f"{vlm.name}: vLLM reads its tokens as '{one.text[:60]}', the tokenizer here as '{text[:60]}'; {LOCAL}"
        )
    return Generated(ids, text, "stop" if ended else "length")


def _bare(text: str) -> str:
    return "".join(text.replace(BROKEN, "").split())
