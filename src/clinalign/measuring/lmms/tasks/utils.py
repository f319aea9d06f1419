"""What the task files name: documents from a run's examples, prompts, judgements, and numbers over all of them.

A document is one question under one condition. Every metric is taken from `evaluation.summary`, so a number here is the
number of `clinalign evaluate` on the same answers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from clinalign.errors import UsageError
from clinalign.evaluation import summarise
from clinalign.evaluation.metrics import ABLATIONS, shown
from clinalign.imaging.images import read_image
from clinalign.measuring.ablations import find_donors, without_image
from clinalign.measuring.judging import judged
from clinalign.measuring.options import EvaluationOptions
from clinalign.records import Example, Outcome, Region
from clinalign.storage import read_table

DATA, SPLIT = "CLINALIGN_DATA", "CLINALIGN_SPLIT"
SYSTEM = "base"
OPTIONS = EvaluationOptions(resamples=100, permutations=100, legacy=False)


def data_file() -> Path:
    """The table that $CLINALIGN_DATA names: a run folder's examples, or a table."""
    given = os.environ.get(DATA, "")
    if not given:
        raise UsageError(f"{DATA} is not set; give a run folder, or a table of examples, whose questions are asked")
    path = Path(given)
    return path / "examples.parquet" if path.is_dir() else path


def documents(conditions: Sequence[str]) -> list[dict[str, Any]]:
    """Every example of the split ($CLINALIGN_SPLIT, "test") under every condition; an example without images is asked
    only as it is."""
    path, split = data_file(), os.environ.get(SPLIT, "test")
    examples = [e for e in read_table(path, Example) if e.split == split]
    if not examples:
        raise UsageError(f"{path}: no example has split '{split}'; set {SPLIT} to one that has")
    pictured = [e for e in examples if e.images]
    donors = find_donors(pictured) if "shuffled" in conditions else {}
    return [
        {
            "id": f"{e.id}/{condition}",
            "condition": condition,
            "question": e.question,
            "answer": e.answer,
            "example": json.dumps(asdict(e)),
            "donor": json.dumps(asdict(donors[e.id])) if condition == "shuffled" else "",
            "folder": str(path.parent),
        }
        for condition in conditions
        for e in (examples if condition == "clean" else pictured)
    ]


def _docs(conditions: Sequence[str], placeholder: Any) -> Any:
    from datasets import Dataset

    return Dataset.from_list(documents(conditions))


def vqa_docs(placeholder: Any) -> Any:
    """The questions as they are. The runner's own data set is a placeholder."""
    return _docs(("clean",), placeholder)


def ablation_docs(placeholder: Any) -> Any:
    """The questions as they are, and again with the image taken away in every way."""
    return _docs(("clean", *ABLATIONS), placeholder)


def example_of(doc: Mapping[str, Any], column: str = "example") -> Example:
    """The example behind a document."""
    given = json.loads(doc[column])
    return Example(**given | {"regions": [Region(**region) for region in given["regions"]]})


def doc_to_visual(doc: Mapping[str, Any]) -> list[Image.Image]:
    """The images to show under the document's condition."""
    example, folder = example_of(doc), Path(doc["folder"])
    if doc["condition"] == "clean":
        shown = [read_image(folder / image) for image in example.images]
    else:
        donors = {example.id: example_of(doc, "donor")} if doc["donor"] else {}
        shown = without_image(example, folder, doc["condition"], donors)
    return [Image.fromarray(image) for image in shown]


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, str] | None = None) -> str:
    """The question between the model's own prompt pieces."""
    around = lmms_eval_specific_kwargs or {}
    return f"{around.get('pre_prompt', '')}{doc['question']}{around.get('post_prompt', '')}"


def _record(doc: Mapping[str, Any], text: str) -> dict[str, Any]:
    """One judged answer, as plain values."""
    said = SimpleNamespace(text=text, finish_reason="stop")
    outcome = judged(example_of(doc), said, system=SYSTEM, decoder="lmms-eval", seed=0, condition=str(doc["condition"]))
    return {"outcome": asdict(outcome), "example": doc["example"]}


def vqa_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """The judged answer under the name of every metric of the task."""
    record = _record(doc, results[0] if results else "")
    return {f"clinalign_{name}": record for name in VQA}


def ablation_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """The same, for the task without the image."""
    record = _record(doc, results[0] if results else "")
    return {f"clinalign_{name}": record for name in (*CHANGED, "ablation_p", "ignores_image")}


def _summary(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    outcomes = [Outcome(**record["outcome"]) for record in records]
    examples = {o.example_id: example_of(record) for o, record in zip(outcomes, records, strict=True)}
    system: Mapping[str, Any] = summarise(outcomes, list(examples.values()), OPTIONS)["systems"][SYSTEM]
    return system


def _metric(name: str, records: Sequence[Mapping[str, Any]]) -> float:
    found = _summary(records)["metrics"].get(name, {}).get("estimate")
    return float("nan") if found is None else float(found)


def _changed(condition: str, records: Sequence[Mapping[str, Any]]) -> float:
    found = _summary(records)["ablations"].get(condition, {}).get("changed", {}).get("estimate")
    return float("nan") if found is None else float(found)


def ablation_p(records: Sequence[Mapping[str, Any]]) -> float:
    """p of "at least 5 % of answers change under another patient's image", patients as the trials."""
    found = _summary(records)["ablations"].get("shuffled", {}).get("p")
    return float("nan") if found is None else float(found)


def ignores_image(records: Sequence[Mapping[str, Any]]) -> float:
    """1 where that is rejected at 0.01: the model ignores the image."""
    return float(_summary(records)["ablations"].get("shuffled", {}).get("ignores_image", False))


VQA = tuple(metric.name for metric in shown("runner"))
CHANGED = tuple(f"changed_{condition}" for condition in ABLATIONS)

Aggregation = Callable[[Sequence[Mapping[str, Any]]], float]
accuracy: Aggregation = partial(_metric, "accuracy")
accuracy_closed: Aggregation = partial(_metric, "accuracy_closed")
accuracy_open: Aggregation = partial(_metric, "accuracy_open")
balanced_accuracy: Aggregation = partial(_metric, "balanced_accuracy")
yes_rate: Aggregation = partial(_metric, "yes_rate")
unanswered: Aggregation = partial(_metric, "unanswered")
unparsable: Aggregation = partial(_metric, "unparsable")
words: Aggregation = partial(_metric, "words")
token_f1: Aggregation = partial(_metric, "token_f1")
token_recall: Aggregation = partial(_metric, "token_recall")
changed_blank: Aggregation = partial(_changed, "blank")
changed_noise: Aggregation = partial(_changed, "noise")
changed_shuffled: Aggregation = partial(_changed, "shuffled")
changed_no_image: Aggregation = partial(_changed, "no_image")
