"""TRL's GRPO trainer with what VALOR needs beside it: ranks over gathered rewards, mended reports, small checkpoints.

The loop, the sampling, the clipped objective and its gradient are TRL's. Overridden are the few places where a stage
differs (`tests/training/test_reinforce.py`; ranks against a naive form in `test_advantages.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from clinalign.errors import RowError, UsageError
from clinalign.language.edit_reports import mend_sentence
from clinalign.processes import rank
from clinalign.progress import say
from clinalign.records import Example
from clinalign.storage.tensors import read_tensors, write_tensors
from clinalign.training.advantages import rank_advantages, weighted
from clinalign.training.metrics import check_gradients

WEIGHTS = "trained.safetensors"
"""What a checkpoint holds of the model: the parameters that train."""


class Ranks(NamedTuple):
    """Advantages are ranks; `spread`: scores of a group that differ by no more are equal."""

    spread: float


class PolicyTrainer(GRPOTrainer):
    """GRPO of a stage. `examples` by the `row` of the data; `show`: an example's images, read when it is asked;
    `edits`: share of each group that is mended."""

    def __init__(
        self, *, examples: Sequence[Example], show: Callable[[Example], list[Image.Image]], ranks: Ranks | None,
        edits: float, encode: Callable[[str], list[int]], **named: Any,
    ) -> None:  # fmt: skip
        self.examples, self.show, self.ranks, self.edits, self.encode = examples, show, ranks, edits, encode
        self.rows: list[int] = []
        self.gathered: Tensor | None = None
        self.mended: Counter[str] = Counter()
        settings = named["args"]
        wanted = settings.max_steps * settings.generation_batch_size // settings.num_generations
        rows = order(len(examples), wanted, settings.seed)
        prompts = [[{"role": "user", "content": examples[row].question}] for row in rows]
        data = Dataset.from_dict({"row": rows, "prompt": prompts})
        super().__init__(train_dataset=data, **named)
        self.remove_callback(PrinterCallback)
        self.params = {name: p for name, p in self._policy().named_parameters() if p.requires_grad}

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's, with ranks for advantages where the stage ranks: they are formed of the rewards of all processes."""
        self.rows = [one["row"] for one in inputs]
        asked = [one | {"images": self.show(self.examples[one["row"]])} for one in inputs]
        batch: dict[str, Any] = super()._generate_and_score_completions(asked)
        if self.ranks is not None and self.gathered is not None:
            scores = weighted(self.gathered, self.reward_weights)
            every = rank_advantages(scores, self._group(), spread=self.ranks.spread)
            first = self.accelerator.process_index * len(inputs)
            batch["advantages"] = every[first : first + len(inputs)].to(batch["advantages"])
        return batch

    def _calculate_rewards(self, *given: Any) -> Tensor:
        self.gathered = super()._calculate_rewards(*given)
        return self.gathered

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        """TRL's, with one sentence mended in the first reports of every group, where the stage edits."""
        prompt_ids, ids, mask, texts, logps, *rest = super()._generate(prompts)
        if self.edits and self._policy().training:
            at = self.accelerator.process_index * len(ids)
            for n in edited(range(at, at + len(ids)), self._group(), self.edits):
                new = self._mended(texts[n - at][0]["content"], ids[n - at], self.examples[self.rows[n - at]])
                if new is not None:
                    texts[n - at][0]["content"], ids[n - at] = new
                    if logps is not None:  # nobody sampled it: no correction for what did
                        logps[n - at] = [None] * len(new[1])
        return prompt_ids, ids, mask, texts, logps, *rest

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[Any, Any, Any]:
        """TRL's, with an empty list for a prompt without an image: the processors take no None beside images."""
        ids, images, fields = super()._tokenize_prompts(prompts)
        return ids, None if images is None else [shown or [] for shown in images], fields

    def _mended(self, text: str, ids: list[int], example: Example) -> tuple[str, list[int]] | None:
        if ids[-1] not in self.eos_token_ids:
            self.mended["cut off"] += 1
            return None
        try:
            found = mend_sentence(text, example.full or example.answer, example.slots)
        except RowError as error:
            self.mended[error.reason] += 1
            return None
        self.mended[found[0] if found else "nothing to mend"] += 1
        return (found[1], self.encode(found[1])) if found else None

    def _group(self) -> int:
        return int((self.num_generations if self._policy().training else self.num_generations_eval) or 1)

    def _policy(self) -> torch.nn.Module:
        assert self.model is not None
        return self.model

    # Checkpoints: what trains and no more, under plain names

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / WEIGHTS, self.params)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_weights(self.params, Path(resume_from_checkpoint) / WEIGHTS)

    def create_model_card(self, *given: Any, **named: Any) -> None:
        """The run writes its own."""

    def _send_telemetry(self) -> None:
        """Nothing is sent."""


def order(examples: int, wanted: int, seed: int) -> list[int]:
    """Which example every prompt of a stage is: passes over all, each in an order of its own. TRL's sampler forgets, on
    resuming, how many passes there were; so a stage is one pass over this list."""
    generator = torch.Generator().manual_seed(seed)
    passes = [torch.randperm(examples, generator=generator) for _ in range(-(-wanted // examples))]
    return torch.cat(passes)[:wanted].tolist()


def load_weights(params: Mapping[str, Tensor], path: Path) -> None:
    """Puts a checkpoint's values into the parameters. `UsageError` where it is none."""
    stored, _ = read_tensors(path, "the weights of a checkpoint", "remove its folder and train again", facts=False)
    with torch.no_grad():
        for name, value in params.items():
            value.copy_(stored[name])


def edited(numbers: range, group: int, share: float) -> list[int]:
    """Which of the reports with these numbers over all processes are mended: the first of each group."""
    return [n for n in numbers if n % group < round(share * group)]


class StepLog(TrainerCallback):
    """Hands on the rows of a stage's log, and checks after the first step with a gradient that it reached all."""

    def __init__(self, keep: Callable[[list[dict[str, Any]]], None]) -> None:
        self.keep, self.checked, self.trainer = keep, False, None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """`UsageError` where a kind of weight that trains has no gradient though others have."""
        params: dict[str, Any] = self.trainer.params if self.trainer is not None else {}
        if not self.checked and any(p.grad is not None and bool(p.grad.any()) for p in params.values()):
            self.checked = True
            check_gradients(params)

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """A line now and then."""
        if rank() == 0 and (state.global_step % max(1, args.max_steps // 10) == 0):
            rows = [row for row in state.log_history if "reward" in row]
            reward = f", reward {rows[-1]['reward']:.3f}" if rows and rows[-1]["reward"] is not None else ""
            say(f"step {state.global_step} of {args.max_steps}{reward}")

    def on_log(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Every row so far: those of an interrupted run come back with its checkpoint."""
        self.keep([row for row in state.log_history if "loss" in row])


def config(options: Any, folder: Path, **named: Any) -> GRPOConfig:
    """TRL's settings for a stage's `PolicyOptions`; `named` are the run's own."""
    processes = named.pop("processes")
    reports, rest = divmod(options.prompts * options.group, processes)
    micro = options.micro_batch or reports
    if rest or reports % micro:
        raise UsageError(
            f"reinforce: {options.prompts} prompts x {options.group} reports do not divide over {processes} processes "
            f"in parts of {micro}; change prompts, group or micro_batch"
        )
    return GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=reports // micro,
        num_generations=options.group,
        max_steps=options.steps,
        learning_rate=options.lr,
        lr_scheduler_type=options.schedule,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        beta=options.kl,
        epsilon=options.clip_low,
        epsilon_high=options.clip_high,
        temperature=options.temperature,
        max_completion_length=options.max_new_tokens,
        loss_type=options.loss,
        scale_rewards=getattr(options, "scale", "none"),
        reward_weights=[options.rewards[name] for name in sorted(options.rewards)],
        disable_dropout=True,
        remove_unused_columns=False,
        shuffle_dataset=False,
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=[],
        save_total_limit=1,
        **named,
    )


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint below a stage's folder."""
    found = sorted(
        (p for p in folder.glob("checkpoint-*") if (p / "trainer_state.json").is_file()),
        key=lambda p: int(p.name.rpartition("-")[2]),
    )
    return str(found[-1]) if found else None


def describe(mended: Mapping[str, int]) -> str:
    """How often which operation was done, in words."""
    return ", ".join(f"{kind} {count}" for kind, count in sorted(mended.items()))


def announce(options: Any, what: str, count: int) -> None:
    """One line of what a stage is about to do."""
    say(
        f"{what}: {options.steps} steps of {options.prompts} prompts x {options.group} reports from {count} examples, "
        f"rewards {', '.join(f'{name} {weight:g}' for name, weight in sorted(options.rewards.items()))}"
    )
