"""How far a system moved from its base where it should not have: on what the base says itself, and on what it knew.

Drift is KL(base || system) over the whole vocabulary, token by token of the base's own answer by teacher forcing, in
nats a token: `drift_claim` over the tokens of the words that a minimal edit would turn and those at which the edited
answer parts, one for each edit, `drift_rest` over all others, the end of the answer among them, `drift` over both.
Where no edit is known every token counts as one of the rest.
Forgetting is the loss on reference answers: `truth_nll`, nats a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from clinalign.language.align import differing
from clinalign.language.offsets import decode, partings, token_offsets
from clinalign.measuring.asking import own_images
from clinalign.measuring.evidence import Paired, Rows
from clinalign.models.features import from_arrays
from clinalign.models.tree import Fork, PackedTrees, Target, pack, score_tokens, tree_of
from clinalign.records import Example

DRIFTS = ("drift", "drift_claim", "drift_rest")
TRUTH = "truth_nll"


def none_of(examples: Sequence[Example]) -> Rows:
    """The rows of a model that did not move."""
    return {example.id: [["clean", name, 0.0, None, ""] for name in DRIFTS] for example in examples}


@torch.no_grad()
def drift_rows(
    vlm: Any, examples: Sequence[Example], *, pairs: Mapping[str, Paired], folder: Path, batch_size: int
) -> Rows:
    """Mean token KLs of the examples, `pairs` being the base's own answers with their edits; the base is the model with
    its adapter off."""
    answers = [_answer(vlm, pairs[example.id]) for example in examples]
    found: Rows = {}
    for start in range(0, len(examples), batch_size):
        part, here = examples[start : start + batch_size], answers[start : start + batch_size]
        packed, features = _packed(vlm, part, [ids for ids, _ in here], folder)
        with vlm.adapter_off():
            states = score_tokens(vlm, packed, features).states
        kl = score_tokens(vlm, packed, features, states).kl_forward.double().clamp_min(0.0).tolist()
        at = 0
        for example, (ids, claim) in zip(part, here, strict=True):
            values = kl[at : at + len(ids)]
            at += len(ids)
            parts = {
                "drift": values,
                "drift_claim": [value for value, inside in zip(values, claim, strict=True) if inside],
                "drift_rest": [value for value, inside in zip(values, claim, strict=True) if not inside],
            }
            found[example.id] = [["clean", name, sum(v) / len(v), None, ""] for name, v in parts.items() if v]
    return found


@torch.no_grad()
def truth_rows(vlm: Any, examples: Sequence[Example], folder: Path, *, batch_size: int) -> Rows:
    """Mean negative log-likelihood a token of each example's reference answer: the full one, or else the short one."""
    found: Rows = {}
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        texts = [example.full or example.answer for example in part]
        answers = [[*vlm.tokenizer(text, add_special_tokens=False)["input_ids"], vlm.end_id] for text in texts]
        packed, features = _packed(vlm, part, answers, folder)
        logps = score_tokens(vlm, packed, features).logps.double().tolist()
        at = 0
        for example, ids in zip(part, answers, strict=True):
            found[example.id] = [["clean", TRUTH, -sum(logps[at : at + len(ids)]) / len(ids), None, ""]]
            at += len(ids)
    return found


def _answer(vlm: Any, own: Paired) -> tuple[list[int], list[bool]]:
    """The tokens of an answer with its end, and which of them an edit would turn."""
    ids = list(vlm.tokenizer(own.text, add_special_tokens=False)["input_ids"])
    spans: Sequence[Sequence[int]] = ()
    if own.edit is not None:
        spans = own.edit.chosen_spans if own.edit.was_correct else own.edit.rejected_spans
    claim = [any(a < end and start < b for start, end in spans) for a, b in token_offsets(vlm.tokenizer, ids)]
    claim.append(False)
    if own.pair is not None:  # an answer that lacks the other's "no" turns at the word that the "no" would stand before
        answers = own.pair.answer, own.pair.counterfactual
        said, other = (decode(vlm.tokenizer, answer) for answer in answers)
        here, there = differing(said, other)
        claim[next(i for i, both in enumerate(zip(*answers, strict=False)) if len(set(both)) > 1)] = True
        for at in partings(vlm.tokenizer, (said, here, answers[0]), (other, there, answers[1])):
            claim[at] = True
    return [*ids, vlm.end_id], claim


def _packed(
    vlm: Any, examples: Sequence[Example], answers: Sequence[Sequence[int]], folder: Path
) -> tuple[PackedTrees, Any]:
    """One answer an example as a packed batch with every token a target, in order."""
    shown = [own_images(example, folder) for example in examples]
    features, keys = from_arrays(vlm, shown)
    trees = [
        tree_of(vlm, example.prompt, images, names, [Fork([ids])])
        for example, images, names, ids in zip(examples, shown, keys, answers, strict=True)
    ]
    targets = [Target(t, 0, 0, offset, ids[offset]) for t, ids in enumerate(answers) for offset in range(len(ids))]
    return pack(vlm, trees, targets).to(vlm.device), features
