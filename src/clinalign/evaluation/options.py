"""Settings of the numbers that outcomes are summed up into."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SummaryOptions(BaseModel):
    """How sure the numbers are, and which are added to the table of metrics."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    sigma: float = Field(45.0, gt=0, description="SD of the lesion noise on the 0-255 scale")
    level: float = Field(0.95, gt=0, lt=1, description="Level of the intervals")
    resamples: int = Field(2000, ge=100, description="Bootstrap resamples over patients")
    permutations: int = Field(10_000, ge=100, description="Sign patterns of the paired test")
    legacy: bool = Field(True, description="Score also as LLaVA-Med and MedAlign do, for comparison with their tables")
    external: list[Literal["radgraph", "chexbert", "ratescore", "green"]] = Field(
        default_factory=list,
        description="Report metrics of the package radeval, where it is installed; what cannot run is named",
    )
    metrics: list[str] = Field(
        default_factory=list,
        description="Own metrics as `module:name`: a function of (outcome, example), or a `Metric` of the table",
    )
