"""An answer into a judged outcome. A judge that cannot tell gives None, which is counted and never scored."""

from __future__ import annotations

from typing import Any

from clinalign.errors import RowError
from clinalign.evaluation.overlap import rouge_l
from clinalign.evaluation.text import text_metrics
from clinalign.language.claims import coverage
from clinalign.language.judge import judge
from clinalign.records import Example, Outcome

RULES = "rules"


def judged(
    example: Example, generated: Any, *, system: str, decoder: str, seed: int, condition: str = "clean"
) -> Outcome:
    """The outcome of one generated answer (`text`, `finish_reason`) to `example`.

    `slots` holds what the judge read; under "span" the character range of the claim where it has one.
    """
    text = generated.text
    correct, reason, slots = verdict(example, text)
    metrics = text_metrics(text, example.answer)
    metrics["rouge_l"] = rouge_l(text, example.answer)
    metrics["coverage"] = coverage(text)
    metrics["truncated"] = float(generated.finish_reason == "length")
    return Outcome(
        example_id=example.id,
        task=example.task,
        suite=example.source,
        system=system,
        decoder=decoder,
        seed=seed,
        condition=condition,
        text=text,
        correct=correct,
        judge=RULES,
        reason=reason,
        slots=slots,
        metrics=metrics,
        length=int(metrics["words"]),
    )


def verdict(example: Example, text: str) -> tuple[bool | None, str, dict[str, Any]]:
    """Right, wrong or cannot tell (None), why, and the slots that were read."""
    if not text.strip():
        return None, "empty", {}
    try:
        found = judge(
            example.question, text, example.answer, task=example.task, slots=dict(example.meta.get("slots") or {})
        )
    except RowError as error:
        return None, error.reason, {}
    slots = dict(found.slots or {})
    if found.span is not None:
        slots["span"] = [int(found.span[0]), int(found.span[1])]
    return found.correct, found.reason, slots
