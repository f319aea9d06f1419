"""What a training leaves on disk, and the key of all that it depends on: whether it has to be done at all."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

import clinalign
from clinalign.models import VLM
from clinalign.models.features import Features
from clinalign.records import Pair
from clinalign.storage import (
    atomic_folder,
    file_hash,
    key_with_rows,
    named_files,
    set_aside,
    to_row,
    whole_lines,
    write_json,
    write_text,
)
from clinalign.training import checkpoint
from clinalign.training.distill import Distill
from clinalign.training.metrics import Row, early_warnings
from clinalign.training.options import TrainOptions

RESULT = "train.json"
DOES_NOT_MATTER = {
    "cache", "cache_features", "checkpoint_every", "log_every", "report_to", "micro_batch", "gradient_checkpointing",
    "parallel",
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


def seconds_of(began: float, rows: Sequence[Row]) -> float:
    """What a training took since `began` (`time.perf_counter`), or what all its steps took, where earlier attempts that
    were broken off made more of them than this one."""
    return round(max(time.perf_counter() - began, sum(row.get("seconds") or 0.0 for row in rows)), 2)


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
    settings = {k: v for k, v in options.dumped().items() if k not in DOES_NOT_MATTER}
    groups = ([*pair.images, *(pair.corrupted_images or []), *sum(pair.ladder_images, [])] for pair in pairs)
    images = sorted({key for group in groups for key in group})
    shown = sorted({key for pair in pairs for key in pair.images})
    teacher = [] if distill is None else [distill.teacher.model.fingerprint, distill.teacher.digests(shown)]
    return key_with_rows(
        {
            "clinalign": clinalign.__version__,
            "settings": settings,
            "own code": named_files([options.method]),
            "seeds": list(seeds),
            "model": [vlm.name, vlm.fingerprint(), reference],
            "teacher": teacher,
            "images": {key: features.digest(key) for key in images},
        },
        "pairs",
        map(to_row, pairs),
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
        else:
            vlm.save_language_model(part)
        if (part / "adapter_config.json").is_file():
            _tidy_config(part / "adapter_config.json", vlm.name)
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


TEMPLATE = """\
---
library_name: {{ "peft" if tune == "lora" else "transformers" }}
base_model: {{ base }}
tags: [clinalign, {{ method }}, vision-language, preference-optimisation]
---

# {{ label }}

{{ what }} for `{{ base }}`, trained with `{{ method }}` \
{% if made %}{{ made }}{% else %}on {{ pairs }} minimal-edit preference pairs{% endif %}. {{ frozen }}

**Research only.** Not a medical device, not for diagnosis, triage or any other clinical use. What it says about an
image may be wrong in ways that read well.

## Data

| | |
|---|---|
{%- for name, value in data.items() %}
| {{ name }} | {{ value }} |
{%- endfor %}

## Settings

| | |
|---|---|
{%- for name, value in settings.items() %}
| {{ name }} | {{ value }} |
{%- endfor %}

## Training

{{ steps }} steps, final loss {{ "%.4f"|format(final.loss) }}
{%- if final["rewards/accuracies"] is defined and final["rewards/accuracies"] is not none -%}
, reward accuracy {{ "%.2f"|format(final["rewards/accuracies"]) }}, margin {{ "%.3f"|format(final["rewards/margins"]) }}
{%- endif %}.
{%- for text in warnings %}

Warning: {{ text }}.
{%- endfor %}

## Evaluation
{% if evaluation %}
{{ evaluated }}

| metric | base | this | difference |
|---|---|---|---|
{%- for row in evaluation %}
| {{ row.metric }} | {{ row.base }} | {{ row.value }} | {{ row.difference }} |
{%- endfor %}
{% else %}
Not evaluated yet.
{% endif %}
## Load

{% if warmup %}
It was trained on top of the run's supervised warm-up, `{{ warmup }}`: alone on `{{ base }}` it gives other answers, \
and `load_vlm` refuses it there. \
In the run folder:

```python
from pathlib import Path

from clinalign.models import load_vlm

vlm = load_vlm("{{ base }}", adapter=Path("{{ warmup }}"))
vlm.merge_adapter()
vlm.load_adapter(Path("{{ here }}"))
```

For PEFT, vLLM and others: `clinalign merge RUN OUT` writes a plain model that holds base, warm-up and adapter.
{% else %}
```python
from pathlib import Path

from clinalign.models import load_vlm

vlm = load_vlm("{{ base }}"{% if tune == "lora" %}, adapter=Path("{{ here }}"){% endif %})
```
{% endif %}"""


def _trained(parts: Sequence[str], tune: str) -> dict[str, str]:
    """What of the model trained and what did not, as the card says it."""
    names = {"projector": "projector", "tower": "vision tower"}
    images = " and ".join(name for part, name in names.items() if part in parts)
    language = "A LoRA adapter" if tune == "lora" else "Language-model weights"
    what = f"{language} with {images}" if images else language
    still = [name for part, name in names.items() if part not in parts]
    frozen = " and ".join(still + ["language model"] * ("language" not in parts))
    verb = "are those" if " and " in frozen else "is that"
    return {
        "what": what if "language" in parts else f"Weights of the {images}",
        "frozen": f"{frozen[:1].upper() + frozen[1:]} {verb} of the base model." if frozen else "",
    }


def write_card(folder: Path, facts: dict[str, Any]) -> Path:
    """Writes or updates `README.md` of an adapter's folder and returns its path.

    The first call's facts stay in `card.yaml`, which is part of the training's result; later ones are merged over them
    on the page alone. Training gives `label, base, method, tune, pairs, data,
    settings, steps, final, warnings`; evaluation may add `evaluated`, a sentence, and `evaluation`, a list of rows
    with `metric, base, value, difference`, each already formatted as text. `here` is where the adapter lies in its run
    folder, `warmup` where the adapter of its warm-up does, without which this one is not what it was trained to be.
    """
    stored = folder / "card.yaml"
    if not stored.is_file():
        write_text(stored, yaml.safe_dump(facts, sort_keys=False, allow_unicode=True))
    defaults = {
        "evaluation": [], "evaluated": "", "warmup": "", "made": "", "here": folder.name, "parts": ["language"]
    }  # fmt: skip
    known = defaults | yaml.safe_load(stored.read_text(encoding="utf-8")) | facts
    known |= _trained(known["parts"], known["tune"])
    page = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False).from_string(TEMPLATE)
    write_text(folder / "README.md", page.render(known))
    return folder / "README.md"
