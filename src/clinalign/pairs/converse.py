"""Edits by a model: the conversation that leads to one, whoever is asked.

A conversation yields what it asks and is sent the reply; it ends with the edit. So an endpoint, recorded replies and
the model being aligned are asked in the same words, one after another or in batches.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from clinalign.errors import RowError
from clinalign.language.align import Edit, blocks, differing
from clinalign.language.claims import claims
from clinalign.pairs import gates, prompts
from clinalign.pairs.graft import find_claim, graft, graft_claim
from clinalign.pairs.options import PairOptions
from clinalign.records import Example

Made = tuple[Edit, gates.Second | None]
"""An edit, and what the model says of the edited text where the rules cannot tell."""
Conversation = Generator[prompts.Request, Any, Made]


def edit_by_model(
    example: Example, text: str, rng: random.Random, choices: Mapping[str, Sequence[str]], options: PairOptions
) -> Conversation:
    """Repairs a wrong answer or plants a mistake in a right one. Raises RowError with a reason of `gates.REASONS`."""
    return _report(example, text, options) if example.task == "report" else _answer(example, text, options)


def _answer(example: Example, text: str, options: PairOptions) -> Conversation:
    found: prompts.Located = yield prompts.judge_request(example, text)
    if found.verdict == "cannot_tell":
        raise RowError("answer", "cannot_tell", "the editor's model cannot tell")
    at = find_claim(text, found.claim)
    if at is None:
        raise RowError("answer", "not_quoted", f"the answer has no '{found.claim[:80]}'")
    was_correct = found.verdict == "right"
    gates.agree(example, text, was_correct)
    claim = text[at[0] : at[1]]
    if was_correct:
        gates.wanted(was_correct, options)
        mistaken: prompts.Mistaken = yield prompts.mistake_request(example, text, claim, options.max_words)
        new = graft_claim(claim, mistaken.changed)
    else:
        new = graft_claim(claim, found.repaired)
    edit = _edit(example, text, text[: at[0]] + new + text[at[1] :], was_correct)
    gates.changed(example, text, edit, options)
    second = None
    if options.verify == "model" and not gates.rules_can_tell(example, edit.text):
        checked: prompts.Checked = yield prompts.check_request(example, text, edit.text)
        right = None if checked.verdict == "cannot_tell" else checked.verdict == "right"
        second = gates.Second(right, checked.same_claim)
    return edit, second


def _report(example: Example, text: str, options: PairOptions) -> Conversation:
    words = options.max_words_a_sentence
    found: prompts.Repaired = yield prompts.repair_request(example, text, words)
    new = graft(text, found.report)
    was_correct = new == text and not found.wrong
    if was_correct:
        gates.agree(example, text, True)
        gates.wanted(was_correct, options)
        spoilt: prompts.Spoilt = yield prompts.spoil_request(example, text, words)
        new = graft(text, spoilt.report)
    return _edit(example, text, new, was_correct), None


def _edit(example: Example, text: str, new: str, was_correct: bool) -> Edit:
    before, after = differing(text, new)
    return Edit(new, before, after, was_correct, _kind(example, text, new))


def _kind(example: Example, text: str, new: str) -> str:
    """What was turned, as the labeller reads both texts; "text" where it reads no difference."""
    if not blocks(text, new):
        return "text"
    if example.task == "report":
        return _kind_of_report(text, new)
    said, says = gates.said(example, text), gates.said(example, new)
    kinds = {"presence" if kind == "yesno" else kind for kind in said | says if said.get(kind) != says.get(kind)}
    return "+".join(sorted(kinds - {"presence"} or kinds)) or "text"


def _kind_of_report(text: str, new: str) -> str:
    own, changed = claims(text), claims(new)
    if len(own) != len(changed):
        return "presence"
    kinds: set[str] = set()
    for a, b in zip(own, changed):
        if a.finding != b.finding:
            kinds.add("finding")
        elif a.status != b.status:
            kinds.add("presence")
        else:
            kinds |= {slot for slot in a.slots.keys() | b.slots.keys() if a.value(slot) != b.value(slot)}
    return "+".join(sorted(kinds)) or "text"
