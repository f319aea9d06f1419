"""Options of the pair stage. Light to import: recipes are read before anything heavy is loaded."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PairOptions(BaseModel):
    """How preference pairs are made of answers."""

    model_config = ConfigDict(extra="forbid")

    editor: Literal["rule"] = Field("rule", description="Who edits: rule (clinical lexicon, offline).")
    max_words: int = Field(6, ge=1, description="Most words an edited short answer may differ in.")
    max_words_a_sentence: int = Field(3, ge=1, description="Most words an edited sentence of a report may differ in.")
    counterfactuals: bool = Field(
        True, description="Make pairs of right answers too, with a planted mistake as rejected."
    )
    max_correct_share: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="At most this share of the pairs comes from right answers; the rest is left out.",
    )
    seed: int = Field(0, description="Seed of every drawn mistake, together with the example's id.")
