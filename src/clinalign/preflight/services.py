"""Who is asked on the way: editor and judge at their endpoints, segmenter, teacher, trackers, packages of metrics."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from clinalign.llm.options import LLMOptions
from clinalign.preflight.finding import Finding, tried
from clinalign.recipe import Recipe

LONGEST_WAIT_S = 10.0


def service_findings(recipe: Recipe, done: frozenset[str]) -> list[Finding]:
    """Each service that the recipe names, tried. One whose stage is `done` is not needed any more."""
    found = []
    if recipe.pair.editor in ("llm", "replay"):
        replay = recipe.pair.replay if recipe.pair.editor == "replay" else ""
        if "pair" not in done:
            found += _ready("editor", "pair.llm", lambda: _endpoint(recipe.pair.llm, replay))
    if recipe.evaluate.judge != "rules" and "evaluate" not in done:
        found += _ready("judge", "evaluate.llm", lambda: _endpoint(recipe.evaluate.llm, recipe.evaluate.replay))
    if recipe.corrupt.segmenter and recipe.corrupt.kind != "none":
        found += _ready("segmenter", "corrupt.segmenter", lambda: _segmenter(recipe))
    if recipe.pair.decisions:
        found += _ready("decisions", "pair.decisions", lambda: _decisions(recipe))
    return found + _teachers(recipe) + _trackers(recipe) + _metrics(recipe)


def _ready(subject: str, field: str, call: Callable[[], str]) -> list[Finding]:
    text, refused = tried(subject, field, call)
    return refused or [Finding("ready", subject, field, str(text))]


def _endpoint(options: LLMOptions, replay: str) -> str:
    from clinalign.llm import Client

    hurried = options.model_copy(update={"timeout_s": min(options.timeout_s, LONGEST_WAIT_S)})
    with Client(hurried, replay=replay) as client:
        return client.check()


def _segmenter(recipe: Recipe) -> str:
    from clinalign.models.segmenter import load_segmenter

    options = recipe.corrupt
    segmenter = load_segmenter(options.segmenter, adapter=options.segmenter_adapter, dtype=recipe.dtype)
    return f"{options.segmenter}: {segmenter.kind}, asked with a {segmenter.prompt}"


def _decisions(recipe: Recipe) -> str:
    from clinalign.pairs.decisions import read_decisions

    return f"{len(read_decisions(Path(recipe.pair.decisions)))} in {recipe.pair.decisions}"


def _teachers(recipe: Recipe) -> list[Finding]:
    from clinalign.models.teachers import load_teacher

    found: list[Finding] = []
    for label in recipe.systems():
        options = recipe.system(label)
        if options.distill is None:
            continue
        name = options.distill.teacher
        field = "align.distill.teacher" if options is recipe.align else f"compare.{label}.distill.teacher"
        teacher_model, refused = tried("teacher", field, lambda name=name: load_teacher(name))  # type: ignore[misc]
        found += refused
        if teacher_model is not None:
            found.append(
                Finding("ready", "teacher", field, f"{name}: {teacher_model.grid[0]} x {teacher_model.grid[1]} patches")
            )
    return found


def _trackers(recipe: Recipe) -> list[Finding]:
    from clinalign.training.metrics import check_trackers

    found: list[Finding] = []
    for label in recipe.systems():
        options = recipe.system(label)
        field = "align.report_to" if options is recipe.align else f"compare.{label}.report_to"
        found += tried("tracker", field, lambda names=options.report_to: check_trackers(names))[1]  # type: ignore[misc]
    return found


def _metrics(recipe: Recipe) -> list[Finding]:
    if not recipe.evaluate.external or importlib.util.find_spec("radeval") is not None:
        return []
    text = (
        f"{', '.join(recipe.evaluate.external)} will not run: radeval is not installed; pip install 'clinalign[eval]'"
    )
    return [Finding("warning", "metrics", "evaluate.external", text)]
