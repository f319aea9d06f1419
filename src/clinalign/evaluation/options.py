"""Settings of the evaluation stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinalign.decoding.options import DecoderField, Greedy
from clinalign.llm.options import LLMOptions

Flip = Literal["lesion_noise", "control", "removal"]
Reliance = Literal["blank", "noise", "shuffled", "no_image"]


class EvaluationOptions(BaseModel):
    """What is measured on which split, and how sure the numbers are."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    split: str = Field("test", description="Split that is evaluated; choose settings on 'dev', read 'test' once")
    limit: int = Field(0, ge=0, description="Most questions evaluated, whole patients in order of a hash; 0: all")
    decoder: DecoderField = Field(
        default=Greedy(), description="How the next token is chosen: a decoder's name, or a mapping of name and options"
    )
    max_new_tokens: int = Field(128, ge=1, description="Longest answer in tokens")
    batch_size: int = Field(32, ge=1, description="Questions answered at once")
    judge: Literal["rules", "llm", "mixed"] = Field(
        "rules",
        description="Who judges answers: the rule labeller, a language model, or (mixed) the rules where they can tell "
        "and the language model for the rest",
    )
    judge_both: int = Field(
        0,
        ge=0,
        description="mixed: answers a batch that the rules judged and the language model reads too, for agreement",
    )
    llm: LLMOptions = Field(default_factory=LLMOptions, description="The judge's endpoint")
    replay: str = Field("", description="Recorded replies of the judge: served instead of asking an endpoint")
    flips: list[Flip] = Field(
        default=["lesion_noise", "control", "removal"],
        description="Conditions under which the margin of the own answer over its counterfactual is measured again",
    )
    flip_levels: list[Annotated[float, Field(gt=0)]] = Field(
        default_factory=list, description="Further SDs of the noise, for the area under the curve of flips"
    )
    flip_answers: bool = Field(
        False, description="Answer again under the conditions of `flips`: does the claim change?"
    )
    flip_limit: int = Field(0, ge=0, description="Most questions for the flips; 0: all that have a region")
    sigma: float = Field(45.0, gt=0, description="SD of the lesion noise on the 0-255 scale")
    reliance: list[Reliance] = Field(
        default_factory=list, description="Conditions that show whether the image is used at all: answered and judged"
    )
    calibration: bool = Field(True, description="Measure the probability of yes on the yes/no questions")
    calibration_limit: int = Field(0, ge=0, description="Most questions for the calibration; 0: all")
    grounding: bool = Field(
        False, description="Measure where the model looks, layer by layer, and which words it rewards"
    )
    grounding_limit: int = Field(0, ge=0, description="Most questions for the grounding; 0: all that have a region")
    legacy: bool = Field(True, description="Score also as LLaVA-Med and MedAlign do, for comparison with their tables")
    external: list[Literal["radgraph", "chexbert", "ratescore", "green"]] = Field(
        default_factory=list,
        description="Report metrics of the package radeval, where it is installed; what cannot run is named",
    )
    level: float = Field(0.95, gt=0, lt=1, description="Level of the intervals")
    resamples: int = Field(2000, ge=100, description="Bootstrap resamples over patients")
    permutations: int = Field(10_000, ge=100, description="Sign patterns of the paired test")
    pictures: bool = Field(
        True, description="Measure token rewards and attention maps of the questions that the page shows"
    )

    @model_validator(mode="after")
    def _complete(self) -> EvaluationOptions:
        if self.judge == "rules":
            return self
        for name in ("model",) if self.replay else ("base_url", "model"):
            if not getattr(self.llm, name):
                raise ValueError(f"judge {self.judge} needs llm.{name}; set evaluate.llm.{name}")
        return self
