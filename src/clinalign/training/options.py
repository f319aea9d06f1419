"""Settings of one training run. No torch here: recipes are validated before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinalign.errors import UsageError
from clinalign.extensions import Choice, is_own, load
from clinalign.objectives import METHODS, Method

NEXT_TOKEN = 2
"""Which tokens `empty_span: next_token` marks: 1, of a side without a span; 2, of every edit that deletes."""


class LoraOptions(BaseModel):
    """LoRA on attention and MLP of the language model; the vision tower and the projector have none."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    r: int = Field(default=128, ge=1, description="Rank")
    alpha: int = Field(default=256, ge=1, description="Scaling numerator")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="Dropout on the adapter's input")
    rslora: bool = Field(default=True, description="Scale by alpha / sqrt(r) instead of alpha / r")


class DistillOptions(BaseModel):
    """MEDALIGN (arXiv 2512.18554): a frozen teacher CLIP teaches a layer where to look and what belongs together."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    variant: Literal["sound", "paper", "code"] = Field(
        "sound",
        description="sound: true KL over image tokens, patches registered through source pixels. paper: both maps "
        "through a softmax, otherwise like sound. code: as published (L2 norms, teacher crops the centre)",
    )
    alpha: float = Field(1.0, ge=0, description="Weight of the similarity loss L_vis")
    beta: float = Field(0.1, ge=0, description="Weight of the attention loss L_att")
    teacher: str = Field(
        "embedded", description="'embedded', a folder or hub name of a CLIP or SigLIP, or 'open_clip:NAME[:WEIGHTS]'"
    )
    layers: list[int] = Field(
        default_factory=list,
        description="Decoder layers from 0 with W before them. Empty: that of full attention nearest 5/8 of the depth",
    )
    rank: int = Field(0, ge=0, description="Rank of W; 0: full")
    epsilon: float = Field(1.0, gt=0, description="Factor before W")
    rows: Literal["prompt", "last", "answer"] = Field(
        "prompt", description="Whose attention: prompt tokens after the image, the last one, or those that answer"
    )
    norm: Literal["sum", "softmax", "l2"] | None = Field(None, description="Form of L_att; empty: the variant's")
    temperature: float = Field(1.0, gt=0, description="Of norm 'softmax'")
    diagonal: bool = Field(True, description="L_vis averages over all entries; false: without the (zero) diagonal")
    crop: Literal["match_student", "centre"] | None = Field(
        None, description="What the teacher sees: the image padded to a square, or its centre; empty: the variant's"
    )
    normalise_first: bool = Field(True, description="Teacher features get unit length before they are resampled")
    question_aware: bool = Field(False, description="The teacher's map is the relevance of its patches to the question")
    store: Literal["auto", "features", "gram"] = Field("auto", description="Kept of an image; auto: the smaller")
    teacher_batch: int = Field(16, ge=1, description="Images the teacher looks at together")


class PolicyOptions(BaseModel):
    """One stage of reinforcement (GRPO): what reports are rewarded for, and how the policy follows."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rewards: dict[str, float] = Field(
        default_factory=dict,
        description="Weight of each reward: precision, recall, denials, side, zone (of reports), correct (of "
        "questions), length, overlap, sentence_set, similarity, radeval_radgraph, radeval_chexbert, "
        "radeval_ratescore, radeval_green, or an own module:name",
    )
    steps: int = Field(100, ge=1, description="Optimiser steps")
    prompts: int = Field(4, ge=1, description="Prompts a step; each is answered by a whole group")
    group: int = Field(8, ge=2, description="Reports sampled for a prompt")
    micro_batch: int = Field(0, ge=0, description="Reports in memory at once on a process; 0: all of a step")
    lr: float = Field(1e-6, gt=0, description="Peak learning rate (AdamW)")
    schedule: Literal["linear", "cosine", "constant"] = Field("constant", description="Learning rate over the steps")
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient clipping")
    temperature: float = Field(1.0, gt=0, description="Of sampling")
    max_new_tokens: int = Field(256, ge=1, description="Longest report in tokens")
    kl: float = Field(0.01, ge=0, description="Weight of the divergence from the model as the stage found it; 0: none")
    clip_low: float = Field(0.2, gt=0, lt=1, description="The probability ratio is clipped below 1 by this")
    clip_high: float = Field(0.2, gt=0, description="And above 1 by this")
    loss: Literal["grpo", "dr_grpo", "dapo"] = Field(
        "grpo", description="A report weighs the same however long (grpo), or every token does (dr_grpo, dapo)"
    )
    edits: float = Field(
        0.0, ge=0, lt=1, description="Share of each group in which one sentence is mended from the reference (EditGRPO)"
    )

    @model_validator(mode="after")
    def _rewarded(self) -> PolicyOptions:
        for name, weight in self.rewards.items():
            Choice("reward", REWARD_NAMES).check(name)
            if weight < 0:
                raise ValueError(f"rewards.{name} is {weight:g}; a weight is 0 or more")
        if not any(self.rewards.values()):
            raise ValueError("rewards: all weights are 0; give one of them a weight")
        if self.edits and not round(self.edits * self.group):
            none = f"edits {self.edits:g} of a group of {self.group} mends no report"
            raise ValueError(f"{none}; set edits to {1 / self.group:g}, or group higher")
        if self.micro_batch and (self.prompts * self.group) % self.micro_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} does not divide the {self.prompts * self.group} reports of a step"
            )
        return self


REWARD_NAMES = (
    "precision", "recall", "denials", "side", "zone", "length", "overlap", "correct", "sentence_set", "similarity",
    "radeval_radgraph", "radeval_chexbert", "radeval_ratescore", "radeval_green",
)  # fmt: skip
OF_REPORTS = ("precision", "recall", "denials", "side", "zone", "length")
"""Rewards that a question has none of, or, length, that do not tell a right answer from a wrong one."""
TEXTUAL = {"precision": 1.0, "recall": 1.0, "denials": 0.5, "side": 0.5, "zone": 0.25, "length": 0.5}


class TextualOptions(PolicyOptions):
    """The first stage: rewards of the text against the reference; trains the language model's LoRA."""

    rewards: dict[str, float] = Field(
        default_factory=TEXTUAL.copy, description=PolicyOptions.model_fields["rewards"].description
    )
    scale: Literal["group", "none"] = Field(
        "group", description="Advantages over the group's standard deviation, or as they are"
    )


class VisualOptions(PolicyOptions):
    """The second stage: ranks of the similarity of image and report, by a frozen expert; no reference is read."""

    rewards: dict[str, float] = Field(
        default_factory={"similarity": 1.0}.copy,
        description="What is ranked: weights of the same rewards",
    )
    variant: Literal["v1", "v2"] = Field(
        "v2", description="v1 trains the projector alone, v2 the language model's LoRA"
    )
    kl: float = Field(0.0, ge=0, description="Weight of the divergence from the model as the stage found it; 0: none")
    spread: float = Field(
        1e-4, ge=0, description="A group whose scores differ by no more than this teaches nothing: its ranks are noise"
    )

    @model_validator(mode="after")
    def _projector_alone(self) -> VisualOptions:
        if self.variant == "v1" and self.kl:
            raise ValueError("variant v1 has no adapter to switch off, so no kl; set kl to 0 or variant to v2")
        return self


class ReinforceOptions(BaseModel):
    """VALOR (arXiv 2512.16201) on TRL's GRPO trainer, in place of training on pairs; at least one of its stages."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    textual: TextualOptions | None = Field(default_factory=TextualOptions, description="First stage; null: none")
    visual: VisualOptions | None = Field(default_factory=VisualOptions, description="Second stage; null: none")
    expert: str = Field(
        "embedded",
        description="Of the visual stage and of sentence_set: 'embedded', a folder or hub name of a CLIP or SigLIP, "
        "or 'open_clip:NAME[:WEIGHTS]'",
    )
    engine: Literal["hf", "vllm"] = Field(
        "hf", description="What samples the reports: the model itself, or vLLM beside it on a GPU"
    )
    vllm_memory: float = Field(0.3, gt=0, lt=1, description="vllm: share of the GPU's memory that it takes")
    tasks: list[Literal["report", "open", "closed"]] = Field(
        ["report"], description="Which of the align split's questions are asked"
    )

    @model_validator(mode="after")
    def _some_stage(self) -> ReinforceOptions:
        if self.textual is None and self.visual is None:
            raise ValueError("both stages are null; leave one of textual and visual")
        questions, known = set(self.tasks) & {"open", "closed"}, self.textual.rewards if self.textual else {}
        if self.textual and questions and not any(w for name, w in known.items() if name not in OF_REPORTS):
            raise ValueError("tasks asks questions, and no textual reward is of them; give rewards.correct a weight")
        if known.get("correct") and not questions:
            raise ValueError("rewards.correct is of questions, and tasks asks for reports alone; add open or closed")
        return self


class TrainOptions(BaseModel):
    """How pairs become an adapter. Defaults are the published FiRe-MPO settings (arXiv 2606.12590)."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    method: Annotated[str, Choice("method", tuple(METHODS))] = Field(
        "firempo", description="Objective; a weight below that it fixes cannot be set"
    )
    beta: float = Field(0.1, gt=0, description="Inverse temperature of the preference margin")
    alpha: float = Field(0.01, ge=0, description="Weight of the token KL at the chosen spans")
    gamma: float = Field(0.1, ge=0, description="Weight of the flipped preference on the corrupted image")
    lam: float = Field(0.5, ge=0, le=1, description="Share of the forward KL(reference || policy); the rest is reverse")
    nll: float = Field(0.0, ge=0, description="Weight of a negative log-likelihood anchor on the chosen answer")
    betas: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="segment_dpo: beta by kind of edit for the tokens in spans, `rest` for all others; kinds that are "
        "not named take `beta`",
    )
    variant: Literal["sound", "paper", "code"] = Field(
        "sound", description="Reading of the loss where paper, published code and a sound form differ"
    )
    rescale: bool = Field(
        False, description="RC: keep the chosen answer rising by rescaling the gradients of a margin's two sides"
    )
    nll_on: Literal["answer", "spans"] = Field("answer", description="Tokens of the chosen answer under the anchor")
    empty_span: Literal["ignore", "next_token"] = Field(
        "ignore",
        description="A side lacks words (deletion): nothing, or the next token; open: the method's own",
    )
    tune: Literal["lora", "full"] = Field("lora", description="Train an adapter, or all weights of the language model")
    train: list[Literal["language", "projector", "tower"]] = Field(
        default=["language"],
        min_length=1,
        description="What trains: language (as `tune` says), projector, tower (the vision's); [projector]: it alone",
    )
    lora: LoraOptions = Field(default_factory=LoraOptions, description="Shape of the adapter")
    distill: DistillOptions | None = Field(None, description="Alignment distillation beside the method; empty: none")
    reinforce: ReinforceOptions | None = Field(
        None,
        description="Reinforcement in place of training on pairs (VALOR); of the lines below only the seeds apply",
    )
    lr: float = Field(1e-6, gt=0, description="Peak learning rate (AdamW)")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="Learning rate after the warm-up")
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="Share of the steps over which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay")
    max_grad_norm: float = Field(1.0, ge=0, description="Gradient clipping; 0 turns it off")
    epochs: float = Field(1.0, gt=0, description="Passes over the pairs")
    max_steps: int = Field(0, ge=0, description="Optimiser steps; 0 takes `epochs`")
    max_tokens: int = Field(
        0,
        ge=0,
        description="Steps for so many tokens of packed rows, image tokens and the corrupted image's rows included, so "
        "that methods cost alike; 0: by `max_steps` or `epochs`",
    )
    batch: int = Field(8, ge=1, description="Pairs an optimiser step, over all processes")
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="Several processes: each the whole model (ddp), or a share of the decoder's layers (fsdp); the "
        "numbers are the same",
    )
    micro_batch: int = Field(0, ge=0, description="Pairs in memory at once; 0 takes the whole batch")
    max_length: int = Field(0, ge=0, description="Longest prompt + answer in tokens; 0 takes what the model can place")
    seed_model: int | None = Field(
        None, ge=0, lt=2**32, description="Seed of first weights and dropout; empty: the run's"
    )
    seed_data: int | None = Field(None, ge=0, lt=2**32, description="Seed of the order of the pairs; empty: the run's")
    bf16: bool = Field(False, description="bfloat16 autocast of the forward passes; log-probabilities stay float32")
    gradient_checkpointing: bool = Field(False, description="Trade time for memory")
    cache: str = Field("", description="Folder of the reference cache; empty: the user's cache folder; 'off': none")
    cache_features: bool = Field(False, description="Keep image features on disk too, beside the reference")
    checkpoint_every: int = Field(50, ge=0, description="Optimiser steps between checkpoints; 0: none")
    log_every: int = Field(5, ge=1, description="Steps between writes of metrics.jsonl (a row for every step)")
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = Field(
        default_factory=list, description="Trackers beside metrics.jsonl"
    )

    @model_validator(mode="after")
    def _open_weights(self) -> TrainOptions:
        """Weights that are left open are the method's own, where it has some."""
        method = METHODS.get(self.method)
        for name, value in (method.defaults if method else {}).items():
            if name not in self.model_fields_set:
                self.__dict__[name] = dict(value) if isinstance(value, Mapping) else value
        return self

    def completed(self) -> TrainOptions:
        """The options with a `module:name` method's own weights in the place of those that stand at their defaults. (A
        recipe is read without importing it, and a run folder's recipe names every key.)"""
        if not is_own(self.method):
            return self
        fields = TrainOptions.model_fields
        values = method_of(self).defaults.items()
        left_open = {name: value for name, value in values if getattr(self, name) == fields[name].get_default()}
        return self.model_copy(update=left_open)

    def dumped(self) -> dict[str, Any]:
        """The options as plain values for a key, with the number of what a word among them means where it changed."""
        changed = {"next_token": NEXT_TOKEN} if self.empty_span == "next_token" else {}
        return self.model_dump(mode="json") | changed

    def differing(self) -> dict[str, Any]:
        """All options but the weights that stand where they stand when left open: what another system takes over."""
        left_open = TrainOptions(method=self.method)
        weights = ("beta", "alpha", "gamma", "lam", "nll", "betas", "empty_span")
        same = {name for name in weights if getattr(self, name) == getattr(left_open, name)}
        return {name: value for name, value in self.model_dump().items() if name not in same}

    @model_validator(mode="after")
    def _divides(self) -> TrainOptions:
        if self.micro_batch > self.batch:
            raise ValueError(f"micro_batch {self.micro_batch} is larger than batch {self.batch}; lower it")
        return self

    @model_validator(mode="after")
    def _one_way(self) -> TrainOptions:
        if self.reinforce is not None and (self.distill is not None or self.tune == "full"):
            raise ValueError("reinforce trains an adapter or the projector by itself; leave out distill and tune: full")
        return self

    @model_validator(mode="after")
    def _weights_count(self) -> TrainOptions:
        if not is_own(self.method) and (text := overruled(self)):
            raise ValueError(text)
        return self

    @model_validator(mode="after")
    def _parts(self) -> TrainOptions:
        if self.tune == "full" and "language" not in self.train:
            raise ValueError("tune=full trains the language model, but train leaves it out; leave tune out")
        if self.reinforce is not None and self.image_parts:
            raise ValueError("train: reinforcement trains the language model alone; leave train at [language]")
        return self

    @property
    def image_parts(self) -> list[str]:
        """The parts that images go through and that train."""
        return sorted({part for part in self.train if part != "language"})

    @property
    def label(self) -> str:
        """What a system trained so is called: its method, of `module:name` the name; valor where it is reinforced."""
        return "valor" if self.reinforce is not None else self.method.rpartition(":")[2]


def method_of(options: TrainOptions) -> Method:
    """The options' method: an entry of `METHODS`, or what `module:name` names, a `Method` or a loss with spans counted.

    Raises `UsageError` where that is neither or cannot be imported.
    """
    found = load(options.method, "method") if is_own(options.method) else METHODS[options.method]
    if not callable(found) and not isinstance(found, Method):
        raise UsageError(f"method '{options.method}': a {type(found).__name__}; name a loss or an objectives.Method")
    method = found if isinstance(found, Method) else Method(found)
    if options.variant != "sound" and options.variant in method.variants:
        loss: Any = method.loss
        method = replace(method, loss=partial(loss, variant=options.variant))
    return replace(method, rescale=True) if options.rescale else method


def overruled(options: TrainOptions) -> str:
    """Which weight was set that the method fixes at another value, and what to do; "" where none was.

    A weight at its default is as if it were left out: a run folder's recipe names every key.
    """
    method = method_of(options)
    if options.variant not in ("sound", *method.variants):
        have = ", ".join(("sound", *method.variants))
        return f"method {options.method} has no variant {options.variant}; it has {have}"
    if options.betas and not method.by_kind:
        others = ", ".join(name for name, other in METHODS.items() if other.by_kind)
        return f"method {options.method} has no betas by kind; leave betas out, or take {others}"
    for name, fixed in method.fixed.items():
        value = getattr(options, name)
        if name in options.model_fields_set and value not in (fixed, TrainOptions.model_fields[name].default):
            others = ", ".join(other for other, method in METHODS.items() if name not in method.fixed)
            return (
                f"method {options.method} fixes {name} at {fixed:g}, so {name}={value:g} would change nothing; leave "
                f"{name} out, or take a method that uses it ({others})"
            )
    return ""
