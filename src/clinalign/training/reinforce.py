"""VALOR (arXiv 2512.16201): reports are sampled, rewarded, and the policy follows, in one or two stages.

The first stage rewards the text against its reference and trains the language model's LoRA. The second ranks the
reports of an image by a frozen expert's similarity and trains the projector alone (`v1`) or the LoRA on (`v2`). What of
this is the paper's, what a neighbour's and what our reading: docs/valor.md.
"""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import clinalign
from clinalign.errors import RowError, UsageError
from clinalign.imaging.images import content_name, read_image
from clinalign.models import VLM
from clinalign.models.expert import Expert, load_expert
from clinalign.models.geometry import as_rgb
from clinalign.processes import count, rank
from clinalign.progress import say
from clinalign.records import Example
from clinalign.storage import Lock, Quarantine, key_of, named_files, to_row, write_json, write_text
from clinalign.storage.tensors import write_tensors
from clinalign.training.metrics import Row, check_trackers, line
from clinalign.training.options import PolicyOptions, ReinforceOptions, TrainOptions, VisualOptions
from clinalign.training.result import TrainResult, finished, seconds_of, write_result
from clinalign.training.rewards import OF_EXPERT
from clinalign.training.scoring import Scorers, Tally, check_rewards, troubles
from clinalign.training.sharding import launched_with

STAGES = ("textual", "visual")
WORK = "reinforce"


def check_reinforce(options: ReinforceOptions, device: str = "cpu") -> None:
    """`UsageError` for what is not installed (TRL, vLLM where it samples, RadEval where it rewards), and for FSDP on a
    CPU, which accelerate, and TRL with it, makes plain data parallelism of without a word."""
    if device == "cpu" and launched_with("ACCELERATE_USE_FSDP"):
        raise UsageError("accelerate's FSDP (ACCELERATE_USE_FSDP) is no FSDP on a CPU; launch without it")
    for name, extra in (("trl", "reinforce"), ("datasets", "reinforce")):
        if importlib.util.find_spec(name) is None:
            raise UsageError(f"reinforce needs {name}; install it with: pip install 'clinalign[{extra}]'")
    if options.engine == "vllm":
        if importlib.util.find_spec("vllm") is None:
            raise UsageError("reinforce.engine vllm needs vllm; install it with: pip install vllm, or set engine to hf")
        if not device.startswith("cuda"):
            raise UsageError("reinforce.engine vllm needs a GPU; set engine to hf")
    for stage in _stages(options).values():
        check_rewards([name for name, weight in stage.rewards.items() if weight])


def reinforce(
    vlm: VLM,
    examples: Sequence[Example],
    folder: Path,
    options: TrainOptions,
    out: Path,
    *,
    label: str,
    quarantine: Quarantine | None = None,
    seed: int = 0,
    resume: bool = True,
) -> TrainResult:
    """Trains by `options.reinforce`; writes what `train` writes: `out/adapter/`, `out/metrics.jsonl`, `out/train.json`.

    `examples`: those that are asked, with their references; image paths relative to `folder`. One whose images cannot
    be read, or that has no reference where a reward reads it, goes to the quarantine under `reinforce:<label>`.
    Rewards that fail are counted, and said at the end; a stage in whose first step none gave a number is refused.
    With `resume` a finished run is returned and an interrupted one goes on at its last checkpoint.
    """
    chosen = options.reinforce
    assert chosen is not None
    check_reinforce(chosen, vlm.device.type)
    check_trackers(options.report_to)
    if vlm.dtype == torch.float16:
        raise UsageError("dtype=float16: small gradients vanish in it; train with dtype=bfloat16 or float32")
    began, stage_name = time.perf_counter(), f"reinforce:{label}"
    seeds = [seed if one is None else one for one in (options.seed_model, options.seed_data)]
    usable, pixels = _usable(examples, folder, chosen, quarantine, stage_name)
    with Lock(out):
        if vlm.peft is None and (chosen.textual is not None or _variant(chosen) == "v2"):
            vlm.attach_lora(**options.lora.model_dump(), seed=seeds[0])
        vlm.close()  # TRL calls the model's own forward
        expert = load_expert(chosen.expert, device=vlm.device) if _needs_expert(chosen) else None
        fingerprint = _key(vlm, usable, pixels, options, seeds, expert)
        done = finished(out, fingerprint) if resume else None
        if done:
            say(f"{label}: trained already, {done.steps} steps")
            return done
        work = out / WORK / fingerprint[:16]
        if rank() == 0 and (out / WORK).is_dir():
            for other in (out / WORK).iterdir():
                if other != work or not resume:
                    shutil.rmtree(other)
        tally, rows = Tally(), list[Row]()
        for name, stage in _stages(chosen).items():
            scorers = Scorers(expert, lambda example: _shown(example, folder), tally)
            run = _Stage(vlm, name, stage, options, usable, scorers, work, seeds[1])
            rows = run.train(rows, out / "metrics.jsonl")
        warnings = _troubles(tally, rows)
        for text in warnings.values():
            say(f"warning: {label}: {text}")
        result = TrainResult(out / "adapter", len(rows), out / "metrics.jsonl", seconds_of(began, rows), warnings)
        if rank() == 0:
            write_result(vlm, options, result, rows, fingerprint, _facts(vlm, options, label, seeds, usable, examples))
            shutil.rmtree(out / WORK, ignore_errors=True)
        return result


def _stages(options: ReinforceOptions) -> dict[str, PolicyOptions]:
    both = {name: getattr(options, name) for name in STAGES}
    return {name: stage for name, stage in both.items() if stage is not None}


def _variant(options: ReinforceOptions) -> str:
    return options.visual.variant if options.visual is not None else ""


def _needs_expert(options: ReinforceOptions) -> bool:
    return any(stage.rewards.get(name) for stage in _stages(options).values() for name in OF_EXPERT)


def _usable(
    examples: Sequence[Example], folder: Path, options: ReinforceOptions, quarantine: Quarantine | None, stage: str
) -> tuple[list[Example], dict[str, list[str]]]:
    """The examples that can be asked, and hashes of their pixels by id; the others go to the quarantine."""
    asked = [(row, e) for row, e in enumerate(examples, 1) if e.task in options.tasks]
    usable, pixels = list[Example](), dict[str, list[str]]()
    for row, example in asked:
        try:
            if not example.answer.strip():
                raise RowError("answer", "no_reference", "rewards compare a report with its reference; give one")
            pixels[example.id] = [content_name(image) for image in _shown(example, folder)]
            usable.append(example)
        except RowError as error:
            if quarantine is None:
                raise UsageError(f"{stage}: example '{example.id}' (row {row}): {error}; take it out") from error
            why = {"field": error.field, "reason": error.reason, "detail": error.detail}
            quarantine.add(stage, file="examples", row=row, id=example.id, **why)
    if not usable:
        wanted = ", ".join(options.tasks)
        raise UsageError(
            f"{stage}: none of the {len(examples)} examples can be asked (task {wanted}); see reinforce.tasks"
        )
    if bare := sum(not e.images for e in usable):
        say(f"{stage}: {bare} of {len(usable)} prompts have no image; similarity does not apply to them")
    return usable, pixels


def _shown(example: Example, folder: Path) -> list[Any]:
    return [as_rgb(read_image(folder / name)) for name in example.images]


def _key(
    vlm: VLM, examples: Sequence[Example], pixels: Mapping[str, list[str]], options: TrainOptions,
    seeds: Sequence[int], expert: Expert | None,
) -> str:  # fmt: skip
    """Hash of what the numbers depend on."""
    chosen = options.reinforce
    assert chosen is not None
    stages = _stages(chosen)
    settings = {name: stage.model_dump(mode="json", exclude={"micro_batch"}) for name, stage in stages.items()}
    own = [name for stage in stages.values() for name in stage.rewards]
    return key_of(
        {
            "clinalign": clinalign.__version__,
            "settings": [settings, chosen.expert, chosen.engine, options.lora.model_dump(), options.bf16],
            "own code": named_files(own),
            "seeds": list(seeds),
            "model": [vlm.name, vlm.fingerprint(), *([] if vlm.end_id == vlm.eos_ids[0] else [vlm.end_id])],
            "expert": expert.teacher.fingerprint if expert is not None else "",
            "examples": [to_row(example) for example in examples],
            "images": pixels,
        }
    )


class _Stage:
    """One stage of a run: its scorers, its trainer, its place on the disk."""

    def __init__(
        self, vlm: VLM, name: str, options: PolicyOptions, training: TrainOptions, examples: Sequence[Example],
        scorers: Scorers, work: Path, seed: int,
    ) -> None:  # fmt: skip
        self.vlm, self.name, self.options, self.training = vlm, name, options, training
        self.examples, self.scorers, self.seed, self.folder = examples, scorers, seed, work / name

    def train(self, before: list[Row], metrics: Path) -> list[Row]:
        """Runs the stage, or takes over what it left; the rows of this and of the stages before."""
        from clinalign.storage import read_state
        from clinalign.training import grpo

        params = self._trainable()
        done = self.folder / "done.json"
        if done.is_file():
            grpo.load_weights(params, self.folder / grpo.WEIGHTS)
            say(f"{self.name} stage: done already")
            return [*before, *read_state(done)["rows"]]
        rows: list[Row] = []

        def keep(history: list[Row]) -> None:
            rows[:] = [self._row(row, len(before)) for row in history]
            if rank() == 0:
                write_text(metrics, "".join(line(row) for row in [*before, *rows]))

        grpo.announce(self.options, f"{self.name} stage", len(self.examples))
        with self._plain_model() as model:
            trainer = self._trainer(model, grpo.StepLog(keep))
            trainer.train(resume_from_checkpoint=grpo.last_checkpoint(self.folder))
            if trainer.mended:
                say(f"{self.name} stage: sentences mended: {grpo.describe(trainer.mended)}")
        if rank() == 0:
            write_tensors(self.folder / grpo.WEIGHTS, params)
            write_json(done, {"rows": rows})
        return [*before, *rows]

    def _trainable(self) -> dict[str, Tensor]:
        """Sets what trains in this stage, and gives it by name."""
        projector = isinstance(self.options, VisualOptions) and self.options.variant == "v1"
        self.vlm.model.requires_grad_(False)
        if projector:
            self.vlm.train_images({"projector"})
            return {name: self.vlm.model.get_parameter(name) for name in self.vlm.image_base}
        adapter = {name: p for name, p in self.vlm.model.named_parameters() if "lora_" in name}
        for value in adapter.values():
            value.requires_grad_(True)
        return dict(adapter)

    @contextmanager
    def _plain_model(self) -> Any:
        """The model as TRL takes it; its forward and its adapters are afterwards what they were."""
        model = self.vlm.model
        forward = model.__dict__.get("forward")
        try:
            yield self.vlm.peft if self.vlm.peft is not None else model
        finally:
            model.__dict__.pop("forward", None)
            if forward is not None:
                model.forward = forward
            if self.vlm.peft is not None and "ref" in self.vlm.peft.peft_config:
                self.vlm.peft.delete_adapter("ref")
            model.eval()

    def _trainer(self, model: Any, log: Any) -> Any:
        from clinalign.training import grpo

        options, vlm = self.options, self.vlm
        every = self.training.checkpoint_every
        named: dict[str, Any] = {"use_cpu": vlm.device.type == "cpu", "bf16": self.training.bf16, "seed": self.seed}
        named |= {"save_strategy": "steps" if every else "no", "save_steps": every or 500, "processes": count()}
        if self.training.gradient_checkpointing:
            named |= {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
        else:
            named |= {"gradient_checkpointing": False}
        chosen = self.training.reinforce
        assert chosen is not None
        if chosen.engine == "vllm":
            named |= {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": chosen.vllm_memory}
        else:
            named |= {"generation_kwargs": {"suppress_tokens": list(vlm.banned_ids), "do_sample": True}}
        ranks = grpo.Ranks(options.spread) if isinstance(options, VisualOptions) else None
        trainer = grpo.PolicyTrainer(
            examples=self.examples, show=self._show, ranks=ranks, edits=options.edits, encode=self._encode, model=model,
            reward_funcs=[self._reward(name) for name in sorted(options.rewards)],
            args=grpo.config(options, self.folder, **named), processing_class=vlm.processor,
            callbacks=[log],
        )  # fmt: skip
        log.trainer = trainer
        return trainer

    def _show(self, example: Example) -> list[Image.Image]:
        return [Image.fromarray(image) for image in self.scorers.show(example)]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.vlm.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, self.vlm.end_id]

    # Rewards

    def _reward(self, name: str) -> Callable[..., list[float | None]]:
        """A reward as TRL calls it: under its own name, for all reports of this process."""
        scorer = self.scorers.of(name)

        def reward(completions: list[Any], row: list[int], **_: Any) -> list[float | None]:
            texts = [one[0]["content"] for one in completions]
            return scorer(texts, [self.examples[n] for n in row])

        reward.__name__ = name
        return reward

    def _row(self, row: Row, before: int) -> Row:
        """A row of the log under its stage, steps counted through; the trainer's bookkeeping left out."""
        kept = {k: v for k, v in row.items() if k not in ("epoch", "num_tokens") and not k.startswith("profiling")}
        return kept | {"stage": self.name, "step": row["step"] + before, "seconds": row.get("step_time")}


def _troubles(tally: Tally, rows: Sequence[Row]) -> dict[str, str]:
    """What went wrong with the rewards, by name."""
    found = troubles(tally.counts, tally.first)
    silent = sum(row.get("reward") is None for row in rows)
    if silent:
        found["no reward"] = f"{silent} of {len(rows)} steps had no reward at all and changed nothing"
    return found


def _facts(
    vlm: VLM,
    options: TrainOptions,
    label: str,
    seeds: Sequence[int],
    usable: Sequence[Example],
    given: Sequence[Example],
) -> dict[str, Any]:
    """What the model card says of the run, its outcome aside."""
    chosen = options.reinforce
    assert chosen is not None
    asked = [example for example in given if example.task in chosen.tasks]
    data = {"prompts": len(usable), "left out (see quarantine)": len(asked) - len(usable)}
    data |= {"without an image": sum(not example.images for example in usable)}
    settings: dict[str, Any] = {"expert": chosen.expert, "engine": chosen.engine}
    for name, stage in _stages(chosen).items():
        settings |= {f"{name}.{key}": value for key, value in stage.model_dump(mode="json").items()}
    settings |= {f"lora.{name}": value for name, value in options.lora.model_dump().items()}
    settings |= {"seed_model": seeds[0], "seed_data": seeds[1]}
    made = f"and reinforced on {len(usable)} prompts ({' and '.join(_stages(chosen))} rewards)"
    projector = _variant(chosen) == "v1"
    alone = projector and len(_stages(chosen)) == 1
    parts = ["language"] * (not alone) + ["projector"] * projector
    base = {"base": vlm.name, "method": "valor", "tune": options.tune, "pairs": 0, "made": made, "parts": parts}
    return {"label": label, **base, "data": data, "settings": settings}
