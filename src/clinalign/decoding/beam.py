"""Beam search over the model's own scores, with the arithmetic of transformers' `generate`."""

from __future__ import annotations

import torch
from torch import Tensor

from clinalign.decoding.loop import PromptBatch
from clinalign.decoding.options import Beam
from clinalign.models.generate import Decoding, advance, prefill


@torch.no_grad()
def beam(batch: PromptBatch, options: Beam, max_new_tokens: int) -> list[list[int]]:
    """The best answer of each prompt: summed log-probabilities over length ** length_penalty, EOS counted."""
    if not max_new_tokens:
        return [[] for _ in range(len(batch))]
    vlm, width = batch.vlm, options.beams
    state = prefill(vlm, batch.ids, batch.features, batch.grids)
    state.select(torch.arange(len(batch), device=vlm.device).repeat_interleave(width))
    eos = torch.tensor(vlm.eos_ids, device=vlm.device)
    search = Search(len(batch), width, options.length_penalty, max_new_tokens)
    # At first all beams of a prompt are the same: only one of them may be extended.
    scores = torch.full((len(batch), width), -torch.inf, device=vlm.device)
    scores[:, 0] = 0.0
    sequences: list[list[list[int]]] = [[[] for _ in range(width)] for _ in range(len(batch))]
    for step in range(1, max_new_tokens + 1):
        tokens, rows, scores, sequences = _extend(vlm.banned_ids, eos, state, scores, sequences, search, step)
        if step == max_new_tokens or search.done(scores, step):
            break
        state.select(rows)
        advance(vlm, state, tokens)
    return search.best(scores, sequences)


def _extend(
    banned: list[int], eos: Tensor, state: Decoding, scores: Tensor, sequences: list, search: Search, step: int
) -> tuple[Tensor, Tensor, Tensor, list]:
    """One step: finished candidates go to `search`, the best unfinished ones go on."""
    prompts, width = scores.shape
    logits = state.logits
    logits[:, banned] = -torch.inf
    each = logits.log_softmax(-1).view(prompts, width, -1) + scores[..., None]
    vocabulary = each.shape[-1]
    # Every beam may end: with (number of ends + 1) x width candidates there are always `width` that do not.
    best, where = each.view(prompts, -1).topk(min((len(eos) + 1) * width, width * vocabulary), dim=-1)
    parents, tokens = where // vocabulary, where % vocabulary
    next_scores = torch.full_like(scores, -torch.inf)
    next_tokens, next_rows = torch.zeros_like(scores, dtype=torch.long), torch.zeros_like(scores, dtype=torch.long)
    next_sequences: list[list[list[int]]] = []
    for i in range(prompts):
        kept: list[list[int]] = []
        for rank, (score, parent, token) in enumerate(
            zip(best[i].tolist(), parents[i].tolist(), tokens[i].tolist(), strict=True)
        ):
            ids = [*sequences[i][parent], token]
            if token in eos.tolist():
                if rank < width:
                    search.finish(i, ids, score, step)
            elif len(kept) < width:
                at = len(kept)
                next_scores[i, at], next_tokens[i, at], next_rows[i, at] = score, token, i * width + parent
                kept.append(ids)
        next_sequences.append(kept)
    return next_tokens.view(-1), next_rows.view(-1), next_scores, next_sequences


class Search:
    """Finished answers of each prompt, at most `width`, best first."""

    def __init__(self, prompts: int, width: int, length_penalty: float, longest: int) -> None:
        self.finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(prompts)]
        self.width, self.length_penalty, self.longest = width, length_penalty, longest

    def finish(self, prompt: int, ids: list[int], score: float, length: int) -> None:
        """Takes a finished answer in."""
        if not score > -torch.inf:
            return
        kept = [*self.finished[prompt], (score / length**self.length_penalty, ids)]
        self.finished[prompt] = sorted(kept, key=lambda item: -item[0])[: self.width]

    def done(self, scores: Tensor, step: int) -> bool:
        """Whether no unfinished beam of any prompt can still beat the worst finished one."""
        length = self.longest if self.length_penalty > 0 else step
        reachable = (scores.amax(1) / length**self.length_penalty).tolist()
        return all(
            len(kept) == self.width and kept[-1][0] >= best for kept, best in zip(self.finished, reachable, strict=True)
        )

    def best(self, scores: Tensor, sequences: list[list[list[int]]]) -> list[list[int]]:
        """The best answers; unfinished ones count at the end, at their own length."""
        for i, rows in enumerate(sequences):
            if len(self.finished[i]) == self.width:
                continue
            for score, ids in zip(scores[i].tolist(), rows, strict=False):
                self.finish(i, ids, score, len(ids))
        return [kept[0][1] if kept else [] for kept in self.finished]
