"""The model card beside an adapter. Training's facts are kept in `card.yaml`, so evaluation can add its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from clinalign.storage import write_text

TEMPLATE = """\
---
library_name: {{ "peft" if tune == "lora" else "transformers" }}
base_model: {{ base }}
tags: [clinalign, {{ method }}, vision-language, preference-optimisation]
---

# {{ label }}

{{ "A LoRA adapter" if tune == "lora" else "Language-model weights" }} for `{{ base }}`, trained with `{{ method }}` \
on {{ pairs }} minimal-edit preference pairs. Vision tower and projector are those of the base model.

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
It was trained on top of the run's supervised warm-up, `{{ warmup }}`: alone on `{{ base }}` it gives other answers. \
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
    defaults = {"evaluation": [], "evaluated": "", "warmup": "", "here": folder.name}
    known = defaults | yaml.safe_load(stored.read_text(encoding="utf-8")) | facts
    page = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False).from_string(TEMPLATE)
    write_text(folder / "README.md", page.render(known))
    return folder / "README.md"
