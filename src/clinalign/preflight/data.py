"""The data by a sample: rows usable, images openable, regions, answers that the rules can judge, splits, language."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clinalign.data.options import PHANTOMS, DataOptions
from clinalign.preflight.finding import Finding, Verdict, tried
from clinalign.recipe import Recipe
from clinalign.records import Example
from clinalign.storage import user_path

ROWS = 48
"""Rows of each file that are read, drawn over its splits and patients."""
SHOWN = 8
"""Examples whose images are kept for the model's processor."""
DRAWN = {"align": 16, "dev": 0, "test": 8}
"""Phantom patients that are drawn."""
LATE = ("real", "hub")
"""Sources that a sample would have to fetch."""
ENGLISH = re.compile(
    r"\b(is|are|was|the|an?|of|in|on|there|what|which|where|how|does|do|describe|any|this|show|seen|has|have|to|with)\b",
    re.IGNORECASE,
)
FEWEST_WORDS = 3
ENOUGH = 0.5
"""Share below which rows or answers are worth a warning."""


@dataclass(slots=True)
class Sampled:
    """Examples of a sample, and the first of each with their pixels. `rows` were read, `whole` says that these are all,
    `left_out` counts why rows were not used and `first` tells of the first one."""

    examples: list[Example]
    rows: int
    whole: bool
    left_out: Counter[str]
    first: str
    missing: list[str]
    image_bytes: int = 0
    shown: list[tuple[Example, list[Any]]] = field(default_factory=list)


def sample(recipe: Recipe) -> tuple[Sampled | None, list[Finding]]:
    """A sample of the recipe's data, read as ingest reads it into a folder that is thrown away; None where it cannot be
    had, with the reason."""
    if missing := _missing(recipe.data):
        return None, missing
    if recipe.data.source in LATE:
        return None, _late(recipe)
    return tried("data", "data", lambda: _sampled(recipe.data))


def suite_findings(recipe: Recipe, sampled: Sampled | None) -> list[Finding]:
    """Whether every suite that is asked finds questions: published files that are there and can be read, the run's own
    data, or phantoms, which are drawn."""
    from clinalign.evaluation.suites.table import belongs

    found: list[Finding] = []
    for suite in recipe.evaluate.suites:
        data, of, own = recipe.evaluate.suite_data.get(suite), sampled, f"evaluate.suite_data.{suite}"
        if data is not None:
            refused = _missing(data, own)
            if not refused and data.source not in LATE:
                of, refused = tried("suites", own, lambda data=data: _sampled(data))  # type: ignore[misc]
            found += refused
            if refused or data.source in LATE:
                continue
        elif recipe.data.source == "phantom":
            found.append(Finding("ready", "suites", "evaluate.suites", f"{suite}: drawn for it"))
            continue
        if of is None:
            continue
        count = sum(belongs(suite, example) for example in of.examples)
        where = (data or recipe.data).path or (data or recipe.data).source
        text = (
            f"{suite}: {count} of {len(of.examples)} {'' if of.whole else 'sampled '}rows of {where} are its questions"
        )
        if not count:
            text += f"; name its published files with {own}, or leave the suite out"
        verdict: Verdict = "ready" if count else "refused" if of.whole else "warning"
        found.append(Finding(verdict, "suites", "evaluate.suites", text))
    return found


def _missing(data: DataOptions, prefix: str = "data") -> list[Finding]:
    """Files and folders that a source names and that are not there."""
    named = (("path", "" if data.source == "hub" else data.path), ("images", data.images), ("key_file", data.key_file))
    return [
        Finding("refused", "data", f"{prefix}.{key}", f"{value}: not there; add {prefix}.{key}=... with your own path")
        for key, value in named
        if value and not user_path(value).exists()
    ]


def _late(recipe: Recipe) -> list[Finding]:
    import importlib.util

    if recipe.data.source == "hub" and importlib.util.find_spec("datasets") is None:
        text = "source hub needs datasets; install it with: pip install 'clinalign[hub]'"
        return [Finding("refused", "data", "data.source", text)]
    text = f"{recipe.data.source}: fetched and checked by ingest, the first stage"
    return [Finding("ready", "data", "data", text)]


def sample_options(options: DataOptions) -> DataOptions:
    """The options of a sample of the same data."""
    if options.source in PHANTOMS:
        named = {name: min(count, DRAWN.get(name) or 1) for name, count in options.splits.items()}
        splits = named or dict(DRAWN)
        return options.model_copy(update={"splits": splits})
    return options.model_copy(update={"limit": min(options.limit or ROWS, ROWS)})


def _sampled(options: DataOptions) -> Sampled:
    from clinalign.data import read
    from clinalign.imaging.images import read_image
    from clinalign.storage import Quarantine

    options = sample_options(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        quarantine = Quarantine(folder / "quarantine.jsonl")
        with contextlib.redirect_stderr(io.StringIO()):  # its progress is not the run's
            examples = read(options, folder, quarantine)
        counts = folder / "ingest.json"
        rows = sum(json.loads(counts.read_bytes())["rows"].values()) if counts.is_file() else len(examples)
        images = {image for example in examples for image in example.images}
        first = next((f"row {q['row']}, {q['field']}: {q['reason']}; {q['detail']}" for q in quarantine.rows), "")
        return Sampled(
            examples,
            rows,
            options.source in PHANTOMS or rows < ROWS,
            Counter(row["reason"] for row in quarantine.rows),
            first,
            quarantine.missing,
            sum((folder / image).stat().st_size for image in images),
            [(e, [read_image(folder / image) for image in e.images]) for e in examples[:SHOWN]],
        )


def data_findings(recipe: Recipe, sampled: Sampled) -> list[Finding]:
    """What the sample says about the rows, the splits, the regions and the answers."""
    where = recipe.data.path or recipe.data.source
    usable, bad = len(sampled.examples), sum(sampled.left_out.values())
    text = f"{where}: {usable} of {usable + bad} {'' if sampled.whole else 'sampled '}rows usable"
    if bad:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sampled.left_out.most_common(3))
        missing = f"; no such file: {sampled.missing[0]}" if sampled.missing else ""
        text += f" ({reasons}); {sampled.first}{missing}"
    strict = recipe.strict and bad
    verdict: Verdict = "refused" if strict else "warning" if bad else "ready"
    found = [Finding(verdict, "data", "strict" if strict else "data", text + ("; strict=true" if strict else ""))]
    return found + _splits(recipe, sampled) + _regions(recipe, sampled) + _answers(recipe, sampled)


def _splits(recipe: Recipe, sampled: Sampled) -> list[Finding]:
    counts = Counter(example.split for example in sampled.examples)
    found = []
    asked = [(recipe.evaluate.split, "evaluate.split")]
    if recipe.sweep is not None:  # which has splits of its own, in the place of that one
        asked = [(name, "sweep") for name in recipe.sweep.asked]
    for name, field_ in (("align", "data.splits"), *asked):
        if counts[name]:
            continue
        there = ", ".join(sorted(counts))
        text = f"no example has split '{name}' (there are {there}); fill the column split, or set data.splits"
        certain = sampled.whole or name not in ("align", "dev", "test")
        found.append(Finding("refused" if certain else "warning", "splits", field_, text))
    return found + _pairs(recipe, sampled) + _donors(recipe, sampled)


def _pairs(recipe: Recipe, sampled: Sampled) -> list[Finding]:
    """With `editor: dataset` the rows of the align split bring the pairs."""
    if recipe.pair.editor != "dataset":
        return []
    own = [example for example in sampled.examples if example.split == "align"]
    having = sum(bool(example.rejected) for example in own)
    if having == len(own):
        return []
    text = f"{len(own) - having} of {len(own)} align rows bring no rejected answer; fill the column, or use editor rule"
    return [Finding("warning" if having or not sampled.whole else "refused", "pairs", "pair.editor", text)]


def _donors(recipe: Recipe, sampled: Sampled) -> list[Finding]:
    """`shuffled` shows each question another patient's images."""
    if "shuffled" not in recipe.evaluate.ablations or not sampled.whole:
        return []
    from clinalign.measuring.ablations import find_donors

    asked = [e for e in sampled.examples if e.split == recipe.evaluate.split and e.images]
    return tried("evaluate", "evaluate.ablations", lambda: find_donors(asked))[1]


def _regions(recipe: Recipe, sampled: Sampled) -> list[Finding]:
    pictured = [example for example in sampled.examples if example.images and example.task != "report"]
    having = sum(bool(example.regions) for example in pictured)
    text = f"{having} of {len(pictured)} questions about images have a region"
    if having or not pictured or recipe.corrupt.segmenter or recipe.corrupt.kind == "none":
        return [Finding("ready", "regions", "data", text)]
    text += "; whole-image noise stands in, and nothing is measured at lesions: add box or mask, or set "
    return [Finding("warning", "regions", "data", text + "corrupt.segmenter")]


def _answers(recipe: Recipe, sampled: Sampled) -> list[Finding]:
    """How many answers the rules could judge, and whether the questions are in the language that they read."""
    from clinalign.language.judge import judge

    asked = sampled.examples
    judged = sum(judge(e.question, e.answer, e.answer, e.task, e.slots).correct is not None for e in asked)
    share = judged / max(1, len(asked))
    text = f"the rules can judge {share:.0%} of the answers"
    helped = recipe.evaluate.judge != "rules"
    verdict: Verdict = "warning" if share < ENOUGH and not helped else "ready"
    if verdict == "warning":
        text += "; the rest counts as unclear and makes no pairs: set evaluate.judge and pair.editor to a model"
    found = [Finding(verdict, "answers", "evaluate.judge", text)]
    foreign = sum(_foreign(example.question) for example in asked)
    if foreign:
        text = (
            f"{foreign / len(asked):.0%} of the questions are not in English, which is all that the rules read; "
            "evaluate.judge=llm and pair.editor=llm take any language"
        )
        found.append(Finding("ready" if helped else "warning", "language", "evaluate.judge", text))
    return found


def _foreign(question: str) -> bool:
    """Whether a question is not English: letters of another script, or several words and none of English grammar."""
    letters = [letter for letter in question if letter.isalpha()]
    if letters and sum(not letter.isascii() for letter in letters) > len(letters) / 3:
        return True
    return len(question.split()) >= FEWEST_WORDS and not ENGLISH.search(question)
