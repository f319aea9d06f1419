"""Settings of the agent. Light to import."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class AgentOptions(BaseModel):
    """How a question is worked on."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    decide: Literal["model", "rules"] = Field(
        "rules", description="Who proposes the tools first: the model, in JSON, or what the question names"
    )
    select: Literal["model", "rules"] = Field(
        "rules", description="Who proposes them a second time; the two lists are resolved into one"
    )
    retries: int = Field(2, ge=0, le=10, description="Further attempts after the checker rejected an answer")
    tool_seconds: float = Field(30.0, gt=0, description="A tool that takes longer is given up, and the trace says so")
    documents: str = Field("", description="Folder of reference texts (.txt, .md); empty: none are consulted")
    passages: int = Field(3, ge=1, description="Passages of the documents that a question is answered with")
