"""Examples and answers made by hand for the scorers of the suites."""

from __future__ import annotations

from typing import Any

from clinalign.records import Example, Outcome


def example(number: int, answer: str, question: str = "Is there a nodule?", **declared: Any) -> Example:
    """A closed question about its own patient; `declared` goes where examples declare it."""
    declared = {"finding": "nodule", "kind": "presence"} | declared
    name = f"e{number:03d}"
    return Example(name, [f"{name}.png"], question, answer, "closed", patient_id=f"p{number:03d}", **declared)


def outcome(example: Example, text: str, condition: str = "clean", seed: int = 0) -> Outcome:
    """An answer that nobody has judged: the scorers read the text."""
    return Outcome(example.id, example.task, "suite", "model", "greedy", seed, condition, text, None, "none")
