"""The one loop all decoders run in.

A decoder is a generator: it yields the scores [B, V] of the next token and is sent the chosen tokens [B]. What
it opens it closes in its own `finally`, which also runs when the loop fails or is left early.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinalign.models import VLM
from clinalign.models.generate import encode_prompts, prefill
from clinalign.models.vlm import Generated

Prompt = tuple[str, Sequence[np.ndarray]]


@dataclass
class PromptBatch:
    """Prompts decoded together. ids: tokens of each; features: of each one its images' features; grids likewise."""

    vlm: VLM
    prompts: Sequence[Prompt]
    ids: list[list[int]]
    features: list[list[Tensor]]
    grids: list[list[Any]]

    def __len__(self) -> int:
        return len(self.prompts)

    @cached_property
    def text_only(self) -> tuple[list[list[int]], list[list[Tensor]], list[list[Any]]]:
        """The same prompts without their images (no placeholder, not a black picture): ids, features, grids."""
        none: list[list[Any]] = [[] for _ in self.prompts]
        return [self.vlm.expand(text, []) for text, _ in self.prompts], none, none

    @cached_property
    def images(self) -> Tensor:
        """Image tokens of the prompts, bool [B, L], padded on the left as `prefill` pads."""
        longest = max(map(len, self.ids))
        rows = [[False] * (longest - len(ids)) + [i == self.vlm.image_token_id for i in ids] for ids in self.ids]
        return torch.tensor(rows, device=self.vlm.device)

    def pair(self, features: list[list[Tensor]]) -> tuple[list[list[int]], list[list[Tensor]], list[list[Any]]]:
        """These prompts, then the same prompts with other features of their images: ids, features, grids."""
        return self.ids * 2, self.features + features, self.grids * 2

    def pair_text_only(self) -> tuple[list[list[int]], list[list[Tensor]], list[list[Any]]]:
        """These prompts, then the same without images."""
        ids, features, grids = self.text_only
        return self.ids + ids, self.features + features, self.grids + grids


DecodingSteps = Generator[Tensor, Tensor, None]


def start(vlm: VLM, prompts: Sequence[Prompt]) -> PromptBatch:
    """Encodes every distinct image once."""
    return PromptBatch(vlm, prompts, *encode_prompts(vlm, prompts))


@torch.no_grad()
def run(
    decoder: Callable[[PromptBatch, Any], DecodingSteps], batch: PromptBatch, options: Any, max_new_tokens: int
) -> list[list[int]]:
    """The answers' ids, EOS included where it was reached."""
    vlm = batch.vlm
    eos = torch.tensor(vlm.eos_ids, device=vlm.device)
    done = torch.zeros(len(batch), dtype=torch.bool, device=vlm.device)
    sampler = Sampler(batch, options)
    sampled: list[Tensor] = []
    steps = decoder(batch, options)
    try:
        with vlm.evaluating():
            scores = next(steps) if max_new_tokens else torch.empty(0)
            for step in range(max_new_tokens):
                scores[:, vlm.banned_ids] = -torch.inf
                tokens = sampler(scores).masked_fill(done, vlm.pad_id)
                sampled.append(tokens.masked_fill(done, -1))
                done = done | torch.isin(tokens, eos)
                if step + 1 == max_new_tokens or bool(done.all()):
                    break
                scores = steps.send(tokens)
    finally:
        steps.close()
    rows = torch.stack(sampled, dim=1).tolist() if sampled else [[] for _ in range(len(batch))]
    return [[i for i in row if i >= 0] for row in rows]


def generated(vlm: VLM, ids: list[int]) -> Generated:
    """An answer with its text."""
    return Generated(ids, vlm.decode(ids), "stop" if ids and ids[-1] in vlm.eos_ids else "length")


class Sampler:
    """Chooses tokens [B] from scores [B, V]. Each row has a generator of its own, seeded by its prompt and images, so
    that an answer does not depend on the batch it is drawn in."""

    def __init__(self, batch: PromptBatch, options: Any) -> None:
        self.temperature, self.top_p = options.temperature, options.top_p
        self.generators = []
        if self.temperature:
            for text, images in batch.prompts:
                keys = [image_seed(image, options.seed) for image in images]
                self.generators.append(torch.Generator().manual_seed(_seed(f"{options.seed}/{text}/{keys}".encode())))

    def __call__(self, scores: Tensor) -> Tensor:
        if not self.temperature:
            return scores.argmax(-1)
        kept = nucleus((scores / self.temperature).softmax(-1), self.top_p)
        rows = [torch.multinomial(row.cpu(), 1, generator=g) for row, g in zip(kept, self.generators, strict=True)]
        return torch.cat(rows).to(scores.device)


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Probabilities [B, V] with everything outside the smallest set that holds `top_p` set to 0."""
    ordered, order = probabilities.sort(-1, descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return probabilities.scatter(-1, order, ordered.masked_fill(outside, 0.0))


def plausible(scores: Tensor, clean: Tensor, beta: float) -> Tensor:
    """Adaptive plausibility: scores [B, V] of tokens whose clean probability is below beta times the largest become
    -inf (arXiv 2210.15097; the cut is on the clean branch). beta 0 cuts nothing."""
    if not beta:
        return scores
    return scores.masked_fill(clean < clean.amax(-1, keepdim=True) + math.log(beta), -torch.inf)


def contrast(clean: Tensor, other: Tensor, alpha: float, beta: float) -> Tensor:
    """(1 + alpha) clean - alpha other, cut by plausibility; [B, V] each."""
    return plausible(clean + alpha * (clean - other), clean, beta)


def image_seed(image: np.ndarray, seed: int) -> int:
    """A seed of an image's own: its noise is the same wherever it is met."""
    return _seed(f"{seed}/{image.shape}/".encode() + np.ascontiguousarray(image).tobytes())


def _seed(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1


def halves(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The clean branch and the other one of a batch that holds both."""
    first, second = scores.chunk(2)
    return first, second


__all__ = [
    "PromptBatch", "Prompt", "DecodingSteps", "contrast", "generated", "halves", "image_seed", "plausible", "prefill",
    "run", "start",
]  # fmt: skip
