"""A model that edits as the rules do, for a server to speak with: it reads the prompts and replies in their shapes."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable
from typing import Any

from clinalign.errors import RowError
from clinalign.language.edit import edit
from clinalign.language.judge import judge
from clinalign.records import Answer, Example

STAGES = ("Located", "InjectedClaim", "Checked", "RepairedReport", "InjectedReport")


class Oracle:
    """Knows the true slots of its examples. `calls` counts requests by stage."""

    def __init__(self, examples: Iterable[Example], answers: Iterable[Answer]) -> None:
        by_id = {example.id: example for example in examples}
        self.known = {(by_id[a.example_id].answer, a.text): by_id[a.example_id] for a in answers}

    def __call__(self, body: dict[str, Any]) -> str:
        stage, fields = stage_of(body), fields_of(body)
        return json.dumps(self.reply(stage, fields))

    def reply(self, stage: str, fields: dict[str, str]) -> dict[str, Any]:
        if stage == "Checked":
            verdict = judge(fields["question"], fields["second"], fields["reference"], "open")
            right = (
                fields["reference"].lower() in fields["second"].lower() if verdict.correct is None else verdict.correct
            )
            return {"verdict": "right" if right else "wrong", "same_claim": fields["first"] == fields["second"]}
        text = fields.get("answer") or fields["report"]
        example = self.known[fields["reference"], text]
        try:
            made = edit(example.question, text, example.answer, example.slots, random.Random(0), task=example.task)
        except RowError:
            return {"claim": text, "verdict": "cannot_tell", "repaired": text}
        if stage == "Located":
            repaired = text if made.was_correct else made.text
            return {"claim": text, "verdict": "right" if made.was_correct else "wrong", "repaired": repaired}
        if stage == "RepairedReport":
            return {"wrong": [] if made.was_correct else ["it"], "report": text if made.was_correct else made.text}
        return {"changed": made.text} if stage == "InjectedClaim" else {"changed": "it", "report": made.text}


def stage_of(body: dict[str, Any]) -> str:
    """Which shape a request asks for."""
    name = body["response_format"]["json_schema"]["name"]
    return next(stage for stage in STAGES if stage.lower() == name)


def fields_of(body: dict[str, Any]) -> dict[str, str]:
    """The data of a request."""
    return json.loads(body["messages"][1]["content"])


def dice(*parts: Any) -> float:
    """A number in [0, 1) that depends on nothing but the parts."""
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16) / 2**32
