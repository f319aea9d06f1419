"""Settings of the stages that ask a model: the answers that pairs are made of, and the evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from clinalign.data.options import DataOptions
from clinalign.data.sources import READERS
from clinalign.decoding.options import DecoderField, Greedy
from clinalign.evaluation.options import SummaryOptions
from clinalign.evaluation.suites import SUITES
from clinalign.llm.options import LLMOptions

Flip = Literal["lesion_noise", "control", "counterfactual", "control_counterfactual", "inpainted", "control_inpainted"]
Ablation = Literal["blank", "noise", "shuffled", "no_image"]
if TYPE_CHECKING:
    Suite = str
else:
    Suite = Literal[tuple(SUITES)]
    """A suite by its name in the table."""
PUBLISHED = {"modality": "mimic_labels"} | {suite: suite for suite in SUITES if suite in READERS}
"""Suite -> the source that reads its published files; the others have none of their own."""
BATCH_SIZE = "Most questions asked at once; no number rests on it but in the last bits, so it is no part of a key"

DRIFT = 2
"""What drift is, for the keys of what measured it: 1, claim is the first token at which the edited answer parts; 2,
those of every edit."""


class AnswerOptions(BaseModel):
    """How the model's own answers are sampled. Greedy, because published gains over sampled baselines did not hold."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    engine: Literal["local", "vllm"] = Field(
        "local",
        description="What samples, here or in the workers of `engine`: the model's own forward, or vLLM on a GPU",
    )
    vllm_memory: float = Field(0.85, gt=0, lt=1, description="vllm: share of the GPU's memory that it takes")
    vllm_length: int = Field(
        0, ge=0, description="vllm: most tokens of a prompt and its answer; 0: the model's own limit"
    )
    decoder: Literal["greedy"] = Field("greedy", description="How the next token is chosen")
    max_new_tokens: int = Field(128, ge=1, description="Longest answer in tokens; one cut off there is quarantined")
    batch_size: int = Field(32, ge=1, description=BATCH_SIZE)


class EvaluationOptions(SummaryOptions):
    """What is measured on which split, and how sure the numbers are."""

    split: str = Field("test", description="Split that is evaluated; choose settings on 'dev', read 'test' once")
    limit: int = Field(0, ge=0, description="Most questions evaluated, whole patients in order of a hash; 0: all")
    decoder: DecoderField = Field(
        default=Greedy(), description="How the next token is chosen: a decoder's name, or a mapping of name and options"
    )
    decoders: list[DecoderField] = Field(
        default_factory=list,
        description="Further decoders; each makes a system of its own of every system, named `SYSTEM (DECODER)`",
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        default_factory=list,
        description="Seeds that decoders which draw are run with, averaged by question; none: the decoder's own seed",
    )
    max_new_tokens: int = Field(128, ge=1, description="Longest answer in tokens")
    batch_size: int = Field(32, ge=1, description=BATCH_SIZE)
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
        default=["lesion_noise", "control", "counterfactual"],
        description="Conditions under which the margin of the own answer over its counterfactual is measured again; "
        "counterfactual: the exact image without the finding where there is one, otherwise the lesion inpainted; "
        "control: the noise elsewhere; control_counterfactual, control_inpainted: the same operation elsewhere",
    )
    flip_levels: list[Annotated[float, Field(gt=0)]] = Field(
        default_factory=list, description="Further SDs of the noise, for the area under the curve of flips"
    )
    flip_answers: bool = Field(
        False, description="Answer again under the conditions of `flips`: does the claim change?"
    )
    flip_limit: int = Field(0, ge=0, description="Most questions for the flips; 0: all that have a region")
    ablations: list[Ablation] = Field(
        default_factory=list, description="Conditions that show whether the image is used at all: answered and judged"
    )
    suites: list[Suite] = Field(
        default_factory=list, description="Suites that every system and decoder is asked besides (docs/suites.md)"
    )
    suite_data: dict[Suite, DataOptions] = Field(
        default_factory=dict,
        description="Where a suite's questions come from: its name, and a path to the published files or the keys of "
        "`data`; without it the run's own data, or with phantoms the suite's phantom counterpart",
    )
    suite_limit: int = Field(160, ge=0, description="Most questions of a suite, whole patients; 0: all")
    suite_samples: int = Field(5, ge=2, description="uncertainty: answers sampled beside each answer")
    calibration: bool = Field(True, description="Measure the probability of yes on the yes/no questions")
    calibration_limit: int = Field(0, ge=0, description="Most questions for the calibration; 0: all")
    drift: bool = Field(
        False,
        description="Measure how far each system moved from the base on the base's own answers, KL(base || system) a "
        "token: on the words of the claim, and on all others",
    )
    grounding: bool = Field(
        False, description="Measure where the model looks, layer by layer, and which words it rewards"
    )
    grounding_limit: int = Field(0, ge=0, description="Most questions for the grounding; 0: all that have a region")
    pictures: bool = Field(
        True, description="Measure token rewards and attention maps of the questions that the page shows"
    )

    @field_validator("suite_data", mode="before")
    @classmethod
    def _published(cls, value: Any) -> Any:
        """A path stands for the published files of the suite, whose reader is known by the suite's name."""
        if not isinstance(value, dict):
            return value
        found = {}
        for suite, given in value.items():
            keys = {"path": given} if isinstance(given, str) else given
            if isinstance(keys, dict) and "source" not in keys:
                if suite not in PUBLISHED:
                    raise ValueError(f"{suite}: no source; a suite without published files needs one, such as table")
                keys = {"source": PUBLISHED[suite], **keys}
            found[suite] = keys
        return found

    @model_validator(mode="after")
    def _suites_with_data(self) -> EvaluationOptions:
        for suite in self.suite_data:
            if suite not in self.suites:
                raise ValueError(f"suite_data names {suite}, which is not asked; add it to evaluate.suites")
        if "uncertainty" in self.suites and self.split == "dev":
            raise ValueError("suite uncertainty calibrates on split dev and cannot report it; set another split")
        return self

    @model_validator(mode="after")
    def _complete(self) -> EvaluationOptions:
        if self.judge == "rules":
            return self
        for name in ("model",) if self.replay else ("base_url", "model"):
            if not getattr(self.llm, name):
                raise ValueError(f"judge {self.judge} needs llm.{name}; set evaluate.llm.{name}")
        return self

    def variants(self, seed: int) -> list[tuple[str, DecoderField, int]]:
        """(what a system's label ends in, decoder, seed) of every asking: each decoder under each seed, but once where
        it draws nothing; `seed` stands where `seeds` names none."""
        found: list[tuple[str, DecoderField, int]] = []
        names = [decoder.name for decoder in self.decoders]
        for number, decoder in enumerate([self.decoder, *self.decoders]):
            same = names[: max(0, number - 1)].count(decoder.name)
            ending = f" ({decoder.name}{f' {same + 1}' if same else ''})" if number else ""
            if self.seeds and hasattr(decoder, "seed") and decoder != Greedy():
                found += [(ending, decoder.model_copy(update={"seed": one}), one) for one in self.seeds]
            else:
                found.append((ending, decoder, seed))
        return found
