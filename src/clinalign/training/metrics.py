"""`metrics.jsonl`: one row an optimiser step under TRL's names, early warnings, the optional trackers; and the check
that every trained weight had a gradient: an adapter that nothing reaches stays zero in silence."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.nn import Parameter

from clinalign.errors import UsageError
from clinalign.progress import say
from clinalign.storage import whole_lines, write_text
from clinalign.training.sharding import whole

TIMING_FIELDS = ("tokens_per_s", "peak_memory_mb", "seconds")
"""Fields of a row that differ between two equal runs; every other field is a function of data, settings and seeds."""

WINDOW = 5
SATURATED = 0.99
COLLAPSE = 20.0

Row = dict[str, Any]


def early_warnings(rows: Sequence[Row]) -> dict[str, str]:
    """What is wrong with a run so far, by short name; empty while all is well. Looks at the latest rows only.

    `saturated`: reward accuracy of the last five steps >= 0.99 while their gradient norm is at least 20 times below
    that of the first five; the pairs are told apart by something easy (style, length) and nothing more is learned.
    `chosen_falling`: the chosen answer's reward is negative and has fallen over three windows of five steps; the margin
    grows by making both answers unlikely.
    """
    found: dict[str, str] = {}
    accuracy, norm = _series(rows, "rewards/accuracies"), _series(rows, "grad_norm")
    if len(accuracy) >= 2 * WINDOW and len(norm) >= 2 * WINDOW:
        drop = _mean(norm[:WINDOW]) / max(_mean(norm[-WINDOW:]), 1e-30)
        if _mean(accuracy[-WINDOW:]) >= SATURATED and drop >= COLLAPSE:
            found["saturated"] = (
                f"reward accuracy {_mean(accuracy[-WINDOW:]):.2f} while the gradient norm fell {drop:.0f}x: the pairs "
                "are told apart by something easy; audit the corpus for style and length"
            )
    chosen = _series(rows, "rewards/chosen")
    if len(chosen) >= 3 * WINDOW:
        a, b, c = (_mean(chosen[len(chosen) - k * WINDOW :][:WINDOW]) for k in (3, 2, 1))
        if a > b > c and c < 0:
            found["chosen_falling"] = (
                f"chosen reward falls ({a:.3f}, {b:.3f}, {c:.3f}): the margin grows by making both answers unlikely; "
                "lower lr, raise alpha, or add nll"
            )
    return found


def _series(rows: Sequence[Row], name: str) -> list[float]:
    return [row[name] for row in rows if row.get(name) is not None]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


class MetricsFile:
    """The rows of a run: kept in memory, appended to `metrics.jsonl`, passed on to the trackers named in `report_to`.

    `before` are the rows of the steps that a resumed run keeps (its checkpoint has them): the file begins with these,
    whatever it held.
    """

    def __init__(
        self, path: Path, before: Sequence[Row], *, report_to: Sequence[str], label: str, settings: Row
    ) -> None:
        self.path = path
        self.rows = list(before)
        write_text(path, "".join(line(row) for row in self.rows))
        self.warned = set(early_warnings(self.rows))
        for row in self.rows:
            self.warned.update(row.get("warnings", ()))
        self._trackers = [_tracker(name, path.parent, label, settings) for name in report_to]

    def add(self, rows: Sequence[Row]) -> None:
        """Appends rows, flushes them, and says each early warning once, when it first holds."""
        with self.path.open("a", encoding="utf-8") as file:
            for row in rows:
                self.rows.append(row)
                found = early_warnings(self.rows)
                if found:
                    row["warnings"] = sorted(found)
                for name in sorted(set(found) - self.warned):
                    say(f"warning: step {row['step']}: {found[name]}")
                    self.warned.add(name)
                file.write(line(row))
                for tracker in self._trackers:
                    tracker.log({k: v for k, v in row.items() if isinstance(v, int | float)}, step=row["step"])

    def close(self) -> None:
        """Ends the trackers."""
        for tracker in self._trackers:
            tracker.finish()


def read_metrics(path: Path) -> list[Row]:
    """The rows of a `metrics.jsonl`; a line cut short by a kill is dropped."""
    return whole_lines(path)[0]


def line(row: Row) -> str:
    """A row as a line of the file."""
    return json.dumps(row, allow_nan=False) + "\n"


def check_trackers(names: Sequence[str]) -> None:
    """Raises `UsageError` naming the extra to install where a tracker's package is missing."""
    for name in names:
        try:
            importlib.import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
        except ImportError as error:
            raise UsageError(
                f"report_to: {name} is not installed; pip install 'clinalign[log]', or drop it from report_to"
            ) from error


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder))

    def log(self, values: Row, step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self.writer.close()


def _tracker(name: str, folder: Path, label: str, settings: Row) -> Any:
    check_trackers([name])
    if name == "tensorboard":
        return _TensorBoard(folder / "tensorboard")
    module = importlib.import_module(name)
    extra = {"dir": str(folder)} if name == "wandb" else {}
    return module.init(project="clinalign", name=label, config=settings, **extra)


def check_gradients(params: Mapping[str, Parameter], step: int = 1) -> None:
    """`UsageError` behind a step with the name of the first group of `params` whose gradients are all missing or zero.

    A group is one kind of weight in one part of the model: all `q_proj` of a language model together. Single layers may
    stay without (an expert that no token chose, keys that another layer's stand in for), and of an adapter's two
    matrices only the second has a gradient at first.
    """
    groups: dict[str, list[Parameter]] = {}
    for name, value in params.items():
        groups.setdefault(_group(name), []).append(value)
    reached = {
        name: any(v.grad is not None and bool(whole(v.grad).any()) for v in some) for name, some in groups.items()
    }
    still = [name for name, has in reached.items() if not has]
    if not still:
        return
    more = f" (and {len(still) - 1} more of {len(groups)})" if len(still) > 1 else ""
    raise UsageError(
        f"step {step}: no gradient reached '{still[0]}'{more}, so it would never train; freeze it or take it out of "
        f"what trains, or check that the loss of this batch depends on it"
    )


def _group(name: str) -> str:
    """The path of a parameter without its layer's number and without what an adapter adds."""
    parts = name.removeprefix("base_model.model.").split(".")
    if any(part.startswith("lora_") for part in parts):
        parts = parts[: next(i for i, part in enumerate(parts) if part.startswith("lora_"))]
    return ".".join(part for part in parts if not part.isdigit())
