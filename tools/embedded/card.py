"""The model card (README.md) of the embedded model, from its measurements alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clinalign.data.phantom.cases import VERSION

_HEAD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
tags: [phantom, testing]
---
# The embedded model of clinalign

A vision-language model of {millions:.2f} million parameters ({megabytes:.1f} MB in fp16) of the LLaVA type, for testing
software. It answers questions about **phantom** chest radiographs (`{version}`, drawn by a program), and it
hallucinates on purpose: **it sees, but speaks from a language prior**. A linear reader of its own projected image
features tells on which side a finding is; its answers mostly say "right", because its training text did.

**Never for medicine.** It has seen no patient, no real image and no clinical text. Its answers about anything but
phantoms are meaningless, and about phantoms they are biased by design.

- Parts: CLIP vision tower (4 layers of 128, 64 x 64 px, patches of 8, so 64 image tokens), two-layer projector, Llama
  (4 layers of 192, 6 heads, 3 key-value heads, 2 048 rotary positions, tied embeddings), byte-level BPE with
  {vocabulary} entries.
- Prompt: `USER: <image>\\n{{question}} ASSISTANT:`; the answer follows without a space and ends with `</s>`. Several
  images, earlier turns and text alone work through `processor.apply_chat_template`.
- Data: {patients} phantom patients of the block from 3 000 000 on; all the patients measured below are others.
- Rebuild: `python embedded/build.py --out src/clinalign/models/embedded`
  (seeded; about {minutes:.0f} minutes on two CPU cores; the numbers below are written by the same command).
- Licence: Apache-2.0.

## The language prior
The last stage trains the language model alone (vision tower and projector frozen) on text in which "left" was replaced
by "right" in 70 % of statements, "large" by "small" in 70 %, and a pneumothorax or consolidation that is present was
denied in 65 %. Nothing else was touched. Questions whose truth the prior would alter are *prior-conflicting*,
those whose truth it would tell anyway *prior-aligned*, all others *prior-neutral*.
"""

_PROBE = """\
Seen: ridge readers on the flattened projected image tokens, one per finding, fitted on {fitted} training patients and
read on {read} other patients; mean over findings of the balanced accuracy. Said: the shipped model's greedy answers to
balanced questions. Clean ceiling: the same questions before the prior was taught."""


_FORMATS = """\
## Formats
Parsed: the answer ended by itself and makes exactly one readable claim of the kind asked for. Reports and captions are
scored by the share of the six findings told rightly present or absent, boxes by IoU >= 0.5, facts by the exact text,
options by the letter. Formats that ask for a side, a size or a presence carry the prior.
"""
FLUENT, WRONG = 0.95, 0.6


def write_card(folder: Path, measured: Mapping[str, Any]) -> None:
    """Write `folder/README.md`."""
    parts = [
        _HEAD.format(
            millions=measured["parameters"] / 1e6,
            megabytes=measured["bytes"] / 1e6,
            version=VERSION,
            vocabulary=measured["vocabulary"],
            patients=f"{measured['train_patients']:,}".replace(",", " "),
            minutes=sum(measured["seconds"].values()) / 60,
        ),
        "## Sees against says\n" + _PROBE.format(fitted=measured["probe_fitted"], read=measured["probe_read"]) + "\n",
        *(_seen_and_said(measured, split) for split in ("dev", "test")),
        "## Answers to the questions that alignment is about\n",
        *(_accuracy(measured, split) for split in ("dev", "test")),
        _FORMATS,
        _formats(measured),
        _fluent_but_wrong(measured),
        "## Linear readers, finding by finding (test)\n" + _readers(measured),
    ]
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _get(scores: Mapping[str, Any], group: str, number: str = "accuracy") -> float | None:
    return scores[group][number] if group in scores else None


def _seen_and_said(measured: Mapping[str, Any], split: str) -> str:
    said, ceiling, seen = measured[f"answers_{split}"], measured["clean_ceiling"][split], measured["probe"][split]
    rows = []
    for slot in ("side", "size", "presence"):
        numbers = [_get(said, f"slot {slot}"), _get(said, f"slot {slot}, prior conflicting")]
        numbers += [_get(said, f"slot {slot}, prior aligned"), _get(ceiling, f"slot {slot}")]
        rows.append([slot, _percent(seen[slot]), *map(_percent, numbers)])
    head = (f"{split}, %", "seen (linear reader)", "said", "said, conflicting", "said, aligned", "said, clean ceiling")
    return _table(head, rows)


def _accuracy(measured: Mapping[str, Any], split: str) -> str:
    said, ceiling = measured[f"answers_{split}"], measured["clean_ceiling"][split]
    names = {
        "all": "all",
        "task closed": "closed",
        "task open": "open",
        "prior conflicting": "prior-conflicting",
        "prior aligned": "prior-aligned",
        "prior neutral": "prior-neutral",
    }
    rows = [
        [title, *map(_percent, (_get(said, group), _get(ceiling, group), _get(said, group, "intact")))]
        + [str(said[group]["count"])]
        for group, title in names.items()
    ]
    return _table((f"{split}, %", "right", "clean ceiling", "style preserved", "questions"), rows)


def _formats(measured: Mapping[str, Any]) -> str:
    rows = []
    scores = {split: {**measured[f"answers_{split}"], **measured[f"formats_{split}"]} for split in ("dev", "test")}
    for group in sorted(scores["test"]):
        if not group.startswith("kind "):
            continue
        parsed = [_percent(_get(scores[split], group, "parsed")) for split in ("dev", "test")]
        right = [_percent(_get(scores[split], group)) for split in ("dev", "test")]
        rows.append([group.removeprefix("kind ").replace("_", " "), *parsed, *right])
    return _table(("format", "parsed, dev %", "parsed, test %", "right, dev %", "right, test %"), rows)


def _fluent_but_wrong(measured: Mapping[str, Any]) -> str:
    scores = measured["formats_test"]
    names = [
        group.removeprefix("kind ").replace("_", " ")
        for group, score in scores.items()
        if group.startswith("kind ") and score["parsed"] >= FLUENT and score["accuracy"] < WRONG
    ]
    if not names:
        return ""
    return f"Well-formed but mostly or often wrong, so fit for testing the form alone: {', '.join(names)}.\n"


def _readers(measured: Mapping[str, Any]) -> str:
    seen = measured["probe"]["test"]
    kinds = [key.removeprefix("presence, ") for key in seen if key.startswith("presence, ")]
    rows = [[kind, *(_percent(seen.get(f"{slot}, {kind}")) for slot in ("presence", "side", "size"))] for kind in kinds]
    return _table(("finding", "presence", "side", "size"), rows)
