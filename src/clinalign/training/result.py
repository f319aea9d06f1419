"""What a training leaves on disk, and the key of all that it depends on: whether it has to be done at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import clinalign
from clinalign.models import VLM
from clinalign.models.features import Features
from clinalign.records import Pair
from clinalign.storage import atomic_folder, file_hash, key_of, named_files, set_aside, to_row, whole_lines, write_json
from clinalign.training import checkpoint
from clinalign.training.card import write_card
from clinalign.training.distill import Distill
from clinalign.training.metrics import Row, early_warnings
from clinalign.training.options import TrainOptions

RESULT = "train.json"
DOES_NOT_MATTER = {
    "cache", "cache_features", "checkpoint_every", "log_every", "report_to", "micro_batch", "gradient_checkpointing"
}  # fmt: skip
"""Options that a resumed run may change: they leave the numbers as they are, up to rounding."""


@dataclass(frozen=True)
class TrainResult:
    """Where the adapter and the metrics are, steps done, seconds taken, and early warnings by name."""

    adapter: Path
    steps: int
    metrics: Path
    seconds: float
    warnings: dict[str, str] = field(default_factory=dict)


def training_key(
    vlm: VLM,
    options: TrainOptions,
    seeds: Sequence[int],
    pairs: Sequence[Pair],
    features: Features,
    reference: str,
    distill: Distill | None,
) -> str:
    """Hash of what a run's numbers depend on: the model as it is loaded (weights, warm-up and adapter included,
    configuration, processor), the pairs, the pixels of their images, the teacher, the settings."""
    settings = {k: v for k, v in options.model_dump(mode="json").items() if k not in DOES_NOT_MATTER}
    images = sorted({key for pair in pairs for key in [*pair.images, *(pair.corrupted_images or [])]})
    shown = sorted({key for pair in pairs for key in pair.images})
    teacher = [] if distill is None else [distill.teacher.model.fingerprint, distill.teacher.digests(shown)]
    return key_of(
        {
            "clinalign": clinalign.__version__,
            "settings": settings,
            "own code": named_files([options.method]),
            "seeds": list(seeds),
            "model": [vlm.name, vlm.fingerprint(), reference],
            "teacher": teacher,
            "pairs": [to_row(pair) for pair in pairs],
            "images": {key: features.digest(key) for key in images},
        }
    )


def finished(out: Path, fingerprint: str) -> TrainResult | None:
    """The result of an earlier call with the same input, if its files are as it left them."""
    file, metrics = out / RESULT, out / "metrics.jsonl"
    if not file.is_file():
        return None
    try:
        state = json.loads(file.read_bytes())
        made = state["fingerprint"], state["files"], state["steps"], state["seconds"]
    except (ValueError, KeyError, TypeError):
        set_aside(file, "damaged")
        return None
    if made[0] != fingerprint or made[1] != _hashes(out / "adapter"):
        return None
    rows, damaged = whole_lines(metrics)
    if damaged or len(rows) != made[2]:
        if metrics.is_file():
            set_aside(metrics, "damaged")
        return None
    (out / checkpoint.NAME).unlink(missing_ok=True)
    return TrainResult(out / "adapter", made[2], metrics, made[3], early_warnings(rows))


def _hashes(adapter: Path) -> dict[str, str]:
    """An adapter's files with their hashes; its page, to which evaluation adds, is left out."""
    return {path.name: file_hash(path) for path in sorted(adapter.glob("*")) if path.suffix != ".md"}


def write_result(
    vlm: VLM, options: TrainOptions, result: TrainResult, rows: Sequence[Row], fingerprint: str, facts: dict[str, Any]
) -> None:
    """Weights and card, whole or not at all; the checkpoint goes once the result is recorded."""
    out = result.adapter.parent
    with atomic_folder(result.adapter, replace=True) as part:
        if options.tune == "lora":
            vlm.save_adapter(part)
            _tidy_config(part / "adapter_config.json", vlm.name)
        else:
            vlm.save_language_model(part)
        write_card(part, facts | {"steps": result.steps, "final": rows[-1], "warnings": list(result.warnings.values())})
    state = asdict(result) | {"adapter": "adapter", "metrics": "metrics.jsonl", "fingerprint": fingerprint}
    write_json(out / RESULT, state | {"files": _hashes(result.adapter)})
    (out / checkpoint.NAME).unlink(missing_ok=True)


def _tidy_config(path: Path, base: str) -> None:
    """PEFT writes a set in hash order, and the folder of the base: sorted, and the name the base was loaded by."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base
    write_json(path, config)
