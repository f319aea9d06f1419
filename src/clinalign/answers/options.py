"""Settings of the answer stage."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class AnswerOptions(BaseModel):
    """How the model's own answers are sampled. Greedy, because published gains over sampled baselines did not hold."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    engine: Literal["local"] = Field("local", description="What runs the model: this process, batched")
    decoder: Literal["greedy"] = Field("greedy", description="How the next token is chosen")
    max_new_tokens: int = Field(128, ge=1, description="Longest answer in tokens; one cut off there is quarantined")
    batch_size: int = Field(32, ge=1, description="Questions answered at once")
