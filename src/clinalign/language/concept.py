"""The short phrase that names what a question and its true answer are about, for a segmenter that is asked in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clinalign.language.asking import NO, NONE, last_question
from clinalign.language.graph import CONCEPTS, GENERIC
from clinalign.language.parse import ABSENT, Mention, Parse, parse


def concept(question: str, truth: str, slots: Mapping[str, Any] | None = None) -> str | None:
    """A finding with its place ("a nodule in the left upper lobe" as "left upper nodule"), or an organ; None where the
    truth says that nothing is there, or where neither names anything to be seen at a place.

    Finding and place are read from the question and from what the truth states; `slots` win over the texts.
    """
    said = truth.strip().lower().rstrip(".")
    given = {kind: str(value) for kind, value in (slots or {}).items() if isinstance(value, str)}
    if said in NONE or given.get("presence") == "no":
        return None
    asked, told = parse(last_question(question)), parse(truth)
    if said in NO and "presence" not in given and not (given.keys() & {"side", "zone"}):
        return None
    stated = _stated(told)
    finding = _finding(stated) or given.get("finding") or _finding(list(asked.mentions))
    places = [_place(kind, given, stated, asked, denied=said in NO) for kind in ("side", "zone")]
    if finding is not None:
        return " ".join(part for part in (*places, finding) if part)
    organ = next((m.value for m in [*stated, *asked.mentions] if m.kind == "organ"), None)
    return " ".join(part for part in (*places, organ) if part) if organ else None


def _stated(parsed: Parse) -> list[Mention]:
    return [m for m in parsed.mentions if m.status != ABSENT]


def _finding(mentions: list[Mention]) -> str | None:
    named = [m.value for m in mentions if m.kind == "finding"]
    return next((f for f in named if f in CONCEPTS and f not in GENERIC), None)


def _place(kind: str, given: Mapping[str, str], stated: list[Mention], asked: Parse, denied: bool) -> str:
    """A slot's true value; the question's own place counts where the truth does not deny it ("Is it left?" - "no")."""
    if kind in given:
        return given[kind]
    mine = next((m.value for m in stated if m.kind == kind), "")
    return mine or ("" if denied else next((m.value for m in asked.mentions if m.kind == kind), ""))
