"""A preference pair as token ids with span masks, checked before the first step; true answers as such pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clinalign.errors import RowError, UsageError
from clinalign.language.offsets import following, offsets_in, partings, spelled
from clinalign.models import VLM
from clinalign.models.boxes import MARK
from clinalign.objectives import BOTH, LADDER
from clinalign.records import Example, Pair, Span
from clinalign.storage import Rows

Grid = tuple[int, int]
SIDES = BOTH
FIELDS = {"chosen": "chosen", "rejected": "rejected", "counterfactual": "corrupted_answer"}
"""Of each answer, the field of a pair that holds its text, and how those of its spans and ids begin."""
NEEDED = {
    "ladder_images": "the method ranks the pair's images from the fullest to the corrupted one; set corrupt.levels",
    "corrupted_images": "the method scores every pair under its corrupted image; set corrupt.kind and corrupt.fallback",
    "corrupted_answer": "the method trains on the answer that is right under the corrupted image, and none is known",
}


@dataclass(slots=True)
class Sample:
    """One pair as token ids; `spans[side]` marks the span tokens of `answers[side]`. Images are known by their keys.

    Beside chosen and rejected there may be the "counterfactual" answer, right under the corrupted image. `flips`: the
    rejected answer is true there. `text` is the prompt in words, where it came as words. `ladder`: images that show
    less and less, between the image and the corrupted one; `prompts`: words and ids of the prompt of other views.
    `kind` of the edit, for losses that weigh kinds.
    """

    id: str
    example_id: str
    prompt: list[int]
    grids: list[Grid]
    answers: dict[str, list[int]]
    spans: dict[str, list[bool]]
    images: list[str]
    corrupted: list[str] | None
    text: str = ""
    flips: bool = True
    weight: float = 1.0
    ladder: list[list[str]] = field(default_factory=list)
    prompts: dict[str, tuple[str, list[int]]] = field(default_factory=dict)
    kind: str = ""

    def asked(self, view: str) -> tuple[str, list[int]]:
        """The prompt of a view, in words and as ids."""
        return self.prompts.get(view, (self.text, self.prompt))

    def shown(self, view: str) -> list[str] | None:
        """The images of a view; None where the pair has none of its kind."""
        if view in LADDER:
            step = LADDER.index(view)
            return self.ladder[step] if step < len(self.ladder) else None
        if view in ("first", "second"):
            return [*self.images, *self.corrupted] if self.corrupted and view in self.prompts else None
        if view == "free":
            return [] if view in self.prompts else None
        return self.corrupted if view == "corrupt" else self.images

    def grids_of(self, view: str) -> list[Grid]:
        """The token grids of the images of a view."""
        times = {"free": 0, "first": 2, "second": 2}.get(view, 1)
        return self.grids * times

    @property
    def fork(self) -> int:
        """Tokens that chosen and rejected have in common before they part."""
        return self.shared(SIDES)

    def shared(self, sides: Sequence[str]) -> int:
        """Tokens that the answers of several sides have in common before they part; 0 of one alone."""
        answers = [self.answers[side] for side in sides]
        if len(answers) < 2:
            return 0
        parted = (i for i, tokens in enumerate(zip(*answers, strict=False)) if len(set(tokens)) > 1)
        return next(parted, min(map(len, answers)))

    def size(self, sides: Sequence[str] = SIDES, view: str = "clean") -> int:
        """Tokens of a packed row with these answers under a view; 0 where there are none."""
        held = [side for side in sides if side in self.answers]
        tails = sum(len(self.answers[side]) for side in held) - self.shared(held) * (len(held) - 1)
        return len(self.asked(view)[1]) + tails if held else 0


def encode_pair(
    vlm: VLM,
    pair: Pair,
    grids: Sequence[Grid],
    corrupted_grids: Sequence[Grid] | None = None,
    *,
    text: str = "whole",
    empty_span: str = "ignore",
    max_length: int = 0,
    needs: Sequence[str] = (),
    views: Sequence[str] = (),
) -> Sample:
    """A pair as token ids with span masks. `grids` are the token grids of its images; `needs`: fields it must have;
    `views`: what else than its image and its corrupted one it is scored under.

    Raises `RowError` for what cannot be trained on: an answer without tokens, with an image token or over the length
    limit, ids that do not spell the text, a span outside the text, a corrupted image of another size, a negative
    weight, a needed field that is empty.
    """
    for name in needs:
        if not getattr(pair, name):
            raise RowError(name, f"no_{name}", NEEDED[name])
    if not 0 <= pair.weight < math.inf:
        raise RowError("weight", "negative_weight", f"{pair.weight:g}: a weight is 0 or more, or the preference turns")
    if corrupted_grids and list(corrupted_grids) != list(grids):
        raise RowError("corrupted_images", "other_size", "the corrupted image gives another token grid than the image")
    for field_name, words in (("prompt", pair.prompt), ("chosen", pair.chosen), ("rejected", pair.rejected)):
        if MARK.search(words):
            detail = "a box that is not in the model's words; write it as `VLM.in_words` does"
            raise RowError(field_name, "box_in_pixels", detail)
    prompt = vlm.expand(pair.prompt, grids)
    answers = {"chosen": list(pair.chosen_token_ids), "rejected": list(pair.rejected_token_ids)}
    if pair.corrupted_answer:
        answers["counterfactual"] = list(pair.corrupted_answer_token_ids)
    prompts = view_prompts(vlm, pair.prompt, grids, views)
    longest = max(len(ids) for ids in (prompt, *(ids for _, ids in prompts.values())))
    for side, ids in answers.items():
        _check_answer(vlm, side, ids, longest, max_length or vlm.max_positions)
    sample = Sample(
        pair.id,
        pair.example_id,
        prompt,
        list(grids),
        answers,
        {},
        list(pair.images),
        pair.corrupted_images or None,  # an empty list is no corrupted image: there is no visual term
        pair.prompt,
        pair.flips,
        pair.weight,
        [list(images) for images in pair.ladder_images],
        prompts,
        pair.edit_kind,
    )
    fork = sample.fork if empty_span == "next_token" else None
    texts = {"chosen": (pair.chosen, pair.chosen_spans), "rejected": (pair.rejected, pair.rejected_spans)}
    if pair.corrupted_answer:
        texts["counterfactual"] = (pair.corrupted_answer, pair.corrupted_answer_spans)
    for side, (answer, spans) in texts.items():
        try:
            sample.spans[side] = span_tokens(vlm.tokenizer, answers[side], answer, spans, next_token=fork)
        except ValueError as error:
            raise RowError(f"{FIELDS[side]}_spans", "span_mismatch", str(error)) from error
    if fork is not None:  # of several edits, each that deletes has a next token of its own
        said = {side: (answer, spans, answers[side]) for side, (answer, spans) in texts.items()}
        for side in (side for side, (_, spans, _) in said.items() if all(s < e for s, e in spans)):
            for at in partings(vlm.tokenizer, said[side], said["rejected" if side == "chosen" else "chosen"]):
                sample.spans[side][at] = True
    return _spans_alone(sample, vlm.eos_ids) if text == "spans" else sample


def view_prompts(
    vlm: VLM, prompt: str, grids: Sequence[Grid], views: Sequence[str]
) -> dict[str, tuple[str, list[int]]]:
    """The prompt, words and ids, of those views that have one of their own: without an image, and with the image and
    the corrupted one after each other, asked about the first or the second."""
    found = {"free": (prompt, vlm.expand(prompt, []))} if "free" in views else {}
    for view in ("first", "second") if grids else ():
        if view in views:
            which = view if view == "first" or len(grids) == 1 else "last"
            text = f"{prompt} Answer based on the {which} {'image' if len(grids) == 1 else f'{len(grids)} images'}."
            found[view] = (text, vlm.expand(text, [*grids, *grids]))
    return found


def with_mismatched(samples: Sequence[Sample], limit: int) -> Sequence[Sample]:
    """Samples with an answer to another prompt each: of the next sample of another example the chosen and the rejected
    one by turns, cut to `limit` tokens with the prompt. Raises `UsageError` where all are of one example."""
    found: Rows[Sample] = Rows()
    for i, sample in enumerate(samples):
        following = (samples[(i + step) % len(samples)] for step in range(1, len(samples)))
        other = next((one for one in following if one.example_id != sample.example_id), None)
        if other is None:
            raise UsageError(
                "method kto compares answers to different questions; all pairs are of one example, add more"
            )
        ids = other.answers[SIDES[i % 2]][: limit - len(sample.prompt)]
        answers, spans = sample.answers | {"mismatched": ids}, sample.spans | {"mismatched": [False] * len(ids)}
        found.append(replace(sample, answers=answers, spans=spans))
    return found


def span_tokens(
    tokenizer: Any, ids: Sequence[int], text: str, spans: Sequence[Span], *, next_token: int | None = None
) -> list[bool]:
    """True for each id that shares a character with a span [start, end) of `text`.

    `text` is what the ids decode to, white space around it aside. A side without a span, or with an empty one, faces a
    pure insertion: with `next_token`, the id that follows the edit is marked (the empty span's place, or the index
    `next_token`), otherwise none is. (What a side lacks beside spans of its own is seen from the other: `partings`.)
    Raises `ValueError` when text, ids and spans do not belong together.
    """
    offsets = offsets_in(tokenizer, ids, text)
    marked = [False] * len(ids)
    for start, end in spans:
        if not 0 <= start <= end <= len(text):
            raise ValueError(f"span [{start}, {end}) lies outside a text of {len(text)} characters")
        for i, (a, b) in enumerate(offsets):
            marked[i] |= a < end and start < b and start < end
        if start == end and next_token is not None:
            marked[following(offsets, start)] = True
    if not spans and next_token is not None:
        marked[min(next_token, len(ids) - 1)] = True
    return marked


def _check_answer(vlm: VLM, side: str, ids: list[int], prompt: int, limit: int) -> None:
    if not ids:
        raise RowError(f"{FIELDS[side]}_token_ids", "empty_answer", "an answer has at least one token")
    banned = set(vlm.banned_ids).intersection(ids)
    if banned:
        raise RowError(
            f"{FIELDS[side]}_token_ids", "image_token_in_answer", f"id {min(banned)} must not stand in an answer"
        )
    if not 0 <= min(ids) <= max(ids) < len(vlm.head.weight):
        beyond = f"the model has ids 0 to {len(vlm.head.weight) - 1}, the answer {min(ids)} to {max(ids)}"
        raise RowError(f"{FIELDS[side]}_token_ids", "unknown_token_id", beyond)
    if prompt + len(ids) > limit:
        raise RowError(FIELDS[side], "too_long", f"prompt {prompt} + answer {len(ids)} tokens, the limit is {limit}")


def _spans_alone(sample: Sample, eos_ids: Sequence[int]) -> Sample:
    """The answers cut down to their span tokens and the end of the answer."""
    for side, ids in sample.answers.items():
        keep = [m or (i in eos_ids) for i, m in zip(ids, sample.spans[side], strict=True)]
        sample.answers[side] = [i for i, k in zip(ids, keep, strict=True) if k]
        sample.spans[side] = [m for m, k in zip(sample.spans[side], keep, strict=True) if k]
    return sample


def truth_pairs(examples: Sequence[Example], tokenizer: Any, eos_id: int) -> Sequence[Pair]:
    """One record an example for `train(method="sft")`, which reads the chosen side alone (the other repeats it)."""
    pairs: Rows[Pair] = Rows()
    for example in examples:
        text, spoken = spelled(tokenizer, example.full or example.answer)
        ids = [*spoken, eos_id]
        pairs.append(
            Pair(
                id=f"{example.id}-truth",
                example_id=example.id,
                round=0,
                images=list(example.images),
                prompt=example.prompt,
                chosen=text,
                rejected=text,
                chosen_spans=[[0, len(text)]],
                rejected_spans=[[0, len(text)]],
                own="rejected",
                chosen_token_ids=ids,
                rejected_token_ids=list(ids),
                was_correct=True,
                edit_kind="truth",
                editor="reference",
            )
        )
    return pairs
