"""Examples into the model's own answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clinalign.answers.options import AnswerOptions
    from clinalign.records import Answer, Example
    from clinalign.tables import Journal, Quarantine


def answer(
    vlm: Any,
    examples: list[Example],
    folder: Path,
    options: AnswerOptions,
    *,
    round: int = 0,
    journal: Journal | None = None,
    quarantine: Quarantine | None = None,
) -> list[Answer]:
    """See `clinalign.answers.local.answer`; imported here only when called, so that recipes load without it."""
    from clinalign.answers.local import answer as sample

    return sample(vlm, examples, folder, options, round=round, journal=journal, quarantine=quarantine)
