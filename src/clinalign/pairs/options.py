"""Options of the pair stage. Light to import: recipes are read before anything heavy is loaded."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinalign.llm.options import LLMOptions


class PairOptions(BaseModel):
    """How preference pairs are made of answers."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    editor: Literal["rule", "llm", "replay", "self", "dataset", "retrieval"] = Field(
        "rule",
        description="Who edits: rule (clinical lexicon, offline), llm (an OpenAI-compatible endpoint), replay (the "
        "recorded replies of one), self (the model that is being aligned), dataset (nobody: it brings a "
        "rejected answer for each question, and no answers are sampled) or retrieval (nobody: answers that are right "
        "alone and wrong beside the texts of `retrieved`)",
    )
    retrieved: str = Field(
        "", description="retrieval: a JSONL file of texts that were found for questions: `id` of the example, `text`"
    )
    llm: LLMOptions = Field(
        default_factory=LLMOptions, description="llm, replay: the endpoint; self: max_tokens, cache"
    )
    replay: str = Field("", description="replay: the recorded replies, a run's replies.jsonl or a cache folder")
    verify: Literal["model", "rules"] = Field(
        "model",
        description="Who judges an edited answer that the rules cannot judge: the editor's model, asked afresh, or "
        "nobody (rules), and it is left out",
    )
    max_words: int = Field(6, ge=1, description="Most words an edited short answer may differ in.")
    max_words_a_sentence: int = Field(3, ge=1, description="Most words an edited sentence of a report may differ in.")
    counterfactuals: bool = Field(
        True, description="Make pairs of right answers too, with an injected error as rejected."
    )
    max_correct_share: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="At most this share of the pairs comes from right answers; the rest is left out.",
    )
    limit: int = Field(0, ge=0, description="Most pairs, drawn by a hash of their ids; 0: all")
    wrong_share: float = Field(
        0.0,
        ge=0.0,
        lt=0.5,
        description="Turn this share of the pairs round, drawn by a hash: what wrong edits do. For studies alone",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of every injected error, together with the example's id.")
    decisions: str = Field("", description="A reader's decisions on pairs, downloaded from the page, to be applied.")

    @model_validator(mode="after")
    def _complete(self) -> PairOptions:
        needed = {"llm": ("base_url", "model"), "replay": ("model",)}.get(self.editor, ())
        for name in needed:
            if not getattr(self.llm, name):
                raise ValueError(f"editor {self.editor} needs llm.{name}; set pair.llm.{name}")
        if self.editor in ("dataset", "retrieval") and self.decisions:
            raise ValueError(f"decisions are about made pairs; leave them out with editor {self.editor}")
        if self.editor == "retrieval" and not self.retrieved:
            raise ValueError("editor retrieval needs texts that were found; set pair.retrieved to a JSONL file")
        if self.editor == "replay" and not self.replay:
            raise ValueError("editor replay needs recorded replies; set pair.replay to a run's replies.jsonl")
        return self
