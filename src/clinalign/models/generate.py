"""Batched greedy decoding on a key-value cache, with the same masks and positions as training.

`prefill` and `advance` are the two halves of every decoder: prompts in, logits out; tokens in, logits out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clinalign.models import own
from clinalign.models.attention import NOTHING, AttentionRequest

if TYPE_CHECKING:
    from clinalign.models.vlm import VLM

Prompt = tuple[str, Sequence[np.ndarray]]


@dataclass
class Decoding:
    """A batch of sequences under way. `attention_mask` bool [B, L]: cached tokens, not padding; `next` [B]: the next
    position; `position_ids` [B, L]: positions of the cached tokens (the first axis of them); `images` bool
    [B, L]: image tokens."""

    cache: Any
    attention_mask: Tensor
    next: Tensor
    logits: Tensor
    position_ids: Tensor
    images: Tensor

    def select(self, rows: Tensor) -> None:
        """Keeps the sequences `rows` [B'] (indexes; one may come more than once)."""
        self.cache.batch_select_indices(rows)
        for name in ("attention_mask", "next", "logits", "position_ids", "images"):
            setattr(self, name, getattr(self, name)[rows])


@torch.no_grad()
def prefill(
    vlm: VLM,
    ids: Sequence[Sequence[int]],
    features: Sequence[Sequence[Tensor]],
    grids: Sequence[Any],
    request: AttentionRequest = NOTHING,
    *,
    beside: Sequence[Sequence[int]] = (),
    positions: Sequence[Tensor] | None = None,
) -> Decoding:
    """Runs prompts, padded on the left, through the model; `logits` [B, V] are those of the first answer token.

    `beside`: a text of each row that stands behind its prompt, columns L to L + L', for a rule that compares the two;
    neither sees the other, and what is kept for the steps to come is the prompt's alone. `positions` [A, L] of each
    prompt, where its grids alone do not say them.
    """
    from transformers import DynamicCache

    length = max(map(len, ids))
    every = length + max(map(len, beside), default=0)
    rows = torch.full((len(ids), every), vlm.pad_id)
    attended = torch.zeros(len(ids), every, dtype=torch.bool)
    placed = torch.zeros(vlm.family.axes, len(ids), every, dtype=torch.long)
    for end, texts, shown in ((length, ids, grids), (every, beside, [[]] * len(beside))):
        for i, (text, grid) in enumerate(zip(texts, shown, strict=True)):
            here = slice(end - len(text), end)
            rows[i, here], attended[i, here] = torch.tensor(text), True
            given = positions[i] if positions is not None and end == length else vlm.positions(text, grid)
            placed[:, i, here] = given
    second = torch.arange(every) >= length
    causal = (second[:, None] == second) & torch.ones(every, every, dtype=torch.bool).tril()
    mask = (attended[:, None, None, :] & causal) | torch.eye(every, dtype=torch.bool)
    rows, attended, placed, mask = (t.to(vlm.device) for t in (rows, attended, placed, mask))
    embeddings, extra = vlm.embed(rows, features)
    out = vlm.language_model(
        inputs_embeds=embeddings,
        attention_mask=vlm.masks(mask, placed, placed, rows),
        position_ids=vlm.axes(placed),
        past_key_values=DynamicCache(),
        use_cache=True,
        **extra,
        **vlm.asking(request, rows),
    )
    if beside:
        out.past_key_values.crop(length - every)
        rows, attended, placed = rows[:, :length], attended[:, :length], placed[..., :length]
    logits = vlm.logits(out.last_hidden_state[:, length - 1])
    images = (rows == vlm.image_token_id) & attended
    return Decoding(out.past_key_values, attended, placed.amax((0, 2)) + 1, logits, placed[0], images)


@torch.no_grad()
def advance(
    vlm: VLM, state: Decoding, tokens: Tensor, request: AttentionRequest = NOTHING, *, beside: Tensor | None = None
) -> Tensor:
    """Appends one token [B] to each sequence and returns the logits [B, V] of the next.

    `beside` [R, D]: further rows for the head, read in the same sweep; their logits [R, V] are returned instead.
    """
    state.attention_mask = torch.cat([state.attention_mask, torch.ones_like(state.attention_mask[:, :1])], dim=1)
    state.images = torch.cat([state.images, torch.zeros_like(state.images[:, :1])], dim=1)
    positions = state.next[None, :, None].expand(vlm.family.axes, -1, -1)
    state.position_ids = torch.cat([state.position_ids, positions[0]], dim=1)
    out = vlm.language_model(
        inputs_embeds=vlm.language_model.get_input_embeddings()(tokens[:, None]),
        attention_mask=vlm.masks(state.attention_mask[:, None, None, :], positions, state.position_ids),
        position_ids=vlm.axes(positions),
        past_key_values=state.cache,
        use_cache=True,
        **vlm.token_inputs(tokens[:, None]),
        **vlm.asking(request, tokens[:, None]),
    )
    state.next = state.next + 1
    last = out.last_hidden_state[:, -1]
    logits = vlm.logits(last if beside is None else torch.cat([last, beside]))
    state.logits = logits[: len(last)]
    return state.logits if beside is None else logits[len(last) :]


def encode_prompts(vlm: VLM, prompts: Sequence[Prompt]) -> tuple[list[list[int]], list[list[Tensor]], list[list[Any]]]:
    """Ids, image features and token grids of some prompts; every distinct image array is encoded once."""
    distinct = {id(image): image for _, images in prompts for image in images}
    inputs = {key: vlm.input_image(image) for key, image in distinct.items()}
    features = dict(zip(inputs, vlm.image_features(list(inputs.values())), strict=True))
    grids = [[vlm.family.grid(vlm.processor, inputs[id(image)]) for image in images] for _, images in prompts]
    ids = [vlm.expand(text, row) for (text, _), row in zip(prompts, grids, strict=True)]
    return ids, [[features[id(image)] for image in images] for _, images in prompts], grids


def greedy(vlm: VLM, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int) -> list[list[int]]:
    """Greedy answers, EOS included where it was reached, in the order of the prompts. Batches go by prompt length."""
    if not vlm.family.known:
        return [own_greedy(vlm, text, images, max_new_tokens) for text, images in prompts]
    answers: list[list[int]] = [[] for _ in prompts]
    batch_size = 1 if vlm.unpacked else batch_size
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i][1]), len(prompts[i][0])))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        for i, ids in zip(chosen, _greedy_batch(vlm, [prompts[i] for i in chosen], max_new_tokens), strict=True):
            answers[i] = ids
    return answers


@torch.no_grad()
def own_greedy(vlm: VLM, text: str, images: Sequence[np.ndarray], max_new_tokens: int) -> list[int]:
    """The model's own generation on what its own processor makes of one prompt."""
    from transformers import GenerationConfig

    if not max_new_tokens:
        return []
    given = own.inputs(vlm, text, images)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=vlm.eos_ids,
        pad_token_id=vlm.pad_id,
        suppress_tokens=vlm.banned_ids or None,
    )
    ids = vlm.model.generate(**given, generation_config=settings)[0]
    return [int(i) for i in ids[given["input_ids"].shape[1] :]]


@torch.no_grad()
def _greedy_batch(vlm: VLM, prompts: Sequence[Prompt], max_new_tokens: int) -> list[list[int]]:
    state = prefill(vlm, *encode_prompts(vlm, prompts))
    eos = torch.tensor(vlm.eos_ids, device=vlm.device)
    done = torch.zeros(len(prompts), dtype=torch.bool, device=vlm.device)
    sampled: list[Tensor] = []
    for step in range(max_new_tokens):
        state.logits[:, vlm.banned_ids] = -torch.inf
        tokens = state.logits.argmax(-1).masked_fill(done, vlm.pad_id)
        sampled.append(tokens.masked_fill(done, -1))
        done = done | torch.isin(tokens, eos)
        if step + 1 == max_new_tokens or bool(done.all()):
            break
        advance(vlm, state, tokens)
    if not sampled:
        return [[] for _ in prompts]
    return [[i for i in row if i >= 0] for row in torch.stack(sampled, dim=1).tolist()]
