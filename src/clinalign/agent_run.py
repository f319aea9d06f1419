"""`clinalign agent`: every question of a set, asked of a model alone and of the agent around it.

    examples.parquet  outcomes.parquet  trace.parquet  masks/  evaluation/eh.json  agent.html

A recipe has its own few keys: `data`, `model` or `llm`, `agent`, and how many questions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinalign.agent.options import AgentOptions
from clinalign.data.options import DataOptions
from clinalign.errors import RowError, UsageError
from clinalign.llm.options import LLMOptions
from clinalign.records import Example, Outcome, TraceStep


class AgentRecipe(BaseModel):
    """What is asked of whom."""

    model_config = ConfigDict(extra="forbid")

    data: DataOptions = Field(default_factory=lambda: DataOptions(source="phantom_fundus", splits={"test": 20}))
    model: str = Field("embedded", description="Folder or hub name of a model; empty: the endpoint of `llm` is asked")
    llm: LLMOptions = Field(default_factory=lambda: LLMOptions())
    agent: AgentOptions = Field(default_factory=lambda: AgentOptions())
    tools: dict[str, Any] = Field(
        default_factory=dict,
        description="Further tools by name: {url, description, covers} over HTTP, or {segmenter, findings}",
    )
    split: str = Field("test", description="The split that is asked")
    questions: int = Field(0, ge=0, description="Ask this many, whole patients first to last; 0: all")
    fixed_order: bool = Field(
        True, description="Ask items with a fixed order of options in that order too, without the agent"
    )
    seed: int = 0

    @model_validator(mode="after")
    def _somebody(self) -> AgentRecipe:
        if bool(self.model) == bool(self.llm.base_url):
            raise ValueError("set model, or model to '' and llm.base_url")
        return self


def load_agent_recipe(source: str, overrides: Sequence[str] = ()) -> AgentRecipe:
    """A recipe file, or "phantom" for the defaults, with KEY=VALUE overrides. Raises `UsageError`."""
    from clinalign.recipe import apply_override, read_values, validated

    values: dict[str, Any] = {"data": {"source": "phantom_fundus", "splits": {"test": 20}}}
    if source != "phantom":
        path = Path(source)
        if not path.is_file():
            raise UsageError(f"{source}: no such recipe; give a YAML file, or phantom for the drawn eyes")
        values = read_values(path)
    for text in overrides:
        apply_override(values, text)
    return validated(AgentRecipe, values, source)


def run_agent(recipe: AgentRecipe, out: Path) -> dict[str, Any]:
    """Asks every question, writes the folder, returns `evaluation/eh.json`."""
    from clinalign.agent.loop import Agent
    from clinalign.data import stream
    from clinalign.pages.agent import write_agent_page
    from clinalign.storage import Quarantine, write_json, write_table, write_text

    quarantine = Quarantine(out / "quarantine.jsonl")
    examples = [e for e in stream(recipe.data, out, quarantine) if e.split == recipe.split]
    examples = examples[: recipe.questions or None]
    if not examples:
        raise UsageError(f"split '{recipe.split}' has no questions; check data and split")
    if not all(e.options for e in examples):
        raise UsageError(
            f"data.source {recipe.data.source}: questions without options; use eh, phantom_fundus or another "
            "multiple-choice set"
        )
    with ExitStack() as stack:
        backend = _backend(recipe, stack)
        agent = Agent(backend, _tools(recipe, backend), recipe.agent, keep=_keeper(out))
        outcomes, steps, costs = ask_all(agent, examples, out, fixed_order=recipe.fixed_order)
    result = summary_of(outcomes, examples, costs, backend.name, recipe.seed)
    write_table(out / "examples.parquet", examples, Example)
    write_table(out / "outcomes.parquet", outcomes, Outcome)
    write_table(out / "trace.parquet", steps, TraceStep)
    write_json(out / "evaluation" / "eh.json", result)
    write_text(out / "agent.json", json.dumps(recipe.model_dump(mode="json"), indent=2) + "\n")
    write_agent_page(out)
    return result


def ask_all(
    agent: Any, examples: Iterable[Example], folder: Path, *, fixed_order: bool = False
) -> tuple[list[Outcome], list[TraceStep], dict[str, dict[str, list[float]]]]:
    """Outcomes of the bare model and of the agent, the trace, and what each question cost."""
    from clinalign.agent.loop import Question
    from clinalign.evaluation.suites.eh import LEGACY, SUITE
    from clinalign.evaluation.suites.eh import fixed_order as in_fixed_order
    from clinalign.imaging.images import read_image
    from clinalign.progress import track

    base, system = agent.backend.name, agent.backend.name + " + agent"
    outcomes: list[Outcome] = []
    steps: list[TraceStep] = []
    costs: dict[str, dict[str, list[float]]] = {}
    for example in track(list(examples), "agent"):
        images = [read_image(folder / name) for name in example.images]
        questions = [(example, SUITE)]
        questions += [(in_fixed_order(example), LEGACY)] if fixed_order and example.fixed_order else []
        for asked, suite in questions:
            letter, reason, cost = _bare(agent.backend, asked, images)
            outcomes.append(_outcome(asked, suite, base, letter, letter or "", reason, cost))
            if suite == SUITE:
                _add(costs, base, cost)
        question = Question(
            example.id, example.question, images, example.options, example.statements,
            example.laterality, example.images,
        )  # fmt: skip
        traced = agent.run(question)
        cost = {
            "calls": traced.calls,
            "seconds": traced.seconds,
            "unsupported": traced.unsupported,
            "attempts": traced.attempts,
        }
        reason = "" if traced.accepted else traced.verdict.feedback
        outcomes.append(_outcome(example, SUITE, system, traced.letter, traced.text, reason, cost))
        _add(costs, system, cost)
        steps += traced.steps
        _add(costs, "tools alone", {"hit": _by_tools_alone(traced, question) == example.answer})
    return outcomes, steps, costs


def summary_of(
    outcomes: Sequence[Outcome],
    examples: Sequence[Example],
    costs: Mapping[str, Mapping[str, Sequence[float]]],
    name: str,
    seed: int = 0,
) -> dict[str, Any]:
    """The suite's numbers, the agent's gain with its interval, and the costs: calls, seconds, unsupported an answer."""
    from clinalign.data.sources.eh import TAXONOMY, items_hash
    from clinalign.evaluation.suites.eh import gain, summarise_eh

    return {
        **summarise_eh(outcomes, examples, taxonomy=TAXONOMY, seed=seed),
        "items_hash": items_hash(examples),
        "gain": gain(outcomes, examples, f"{name} + agent", name, seed=seed).as_dict(),
        "costs": {
            system: {key: float(np.mean(values)) for key, values in rows.items()} for system, rows in costs.items()
        },
    }


def as_text(result: Mapping[str, Any]) -> str:
    """The short table of the terminal."""
    lines = []
    for system, groups in result["systems"].items():
        row = groups["all"]
        cost = result["costs"].get(system, {})
        lines.append(
            f"{system:28} accuracy {_percent(row['accuracy'])}  F1 {_percent(row['f1'])}  "
            f"{cost.get('calls', 0):.1f} calls, {cost.get('seconds', 0):.2f} s a question"
        )
    found = result["gain"]
    lines.append(f"gain of the agent {_percent(found)} points, {result['items']} items {result['items_hash'][:12]}")
    return "\n".join(lines)


def _percent(interval: Mapping[str, Any]) -> str:
    if interval["low"] is None:
        return f"{100 * interval['estimate']:.1f}"
    return f"{100 * interval['estimate']:.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def _bare(backend: Any, example: Example, images: Sequence[np.ndarray]) -> tuple[str | None, str, dict[str, float]]:
    """The model alone: the same question in the same form, without facts, documents or a checker."""
    from clinalign.agent.backends import Request

    statements = dict(zip("ABCDEFGH", example.statements or example.options))
    start, letter, reason = time.monotonic(), None, ""
    before = backend.calls
    try:
        letter = backend.answer(Request(example.question, images, (), statements)).letter
    except RowError as error:
        reason = f"{error.reason}: {error.detail}"
    return letter, reason, {"calls": backend.calls - before, "seconds": time.monotonic() - start}


def _by_tools_alone(traced: Any, question: Any) -> str | None:
    """The one option that the facts of the trace support, without a model: what the agent's tools are worth alone."""
    from clinalign.agent.check import check_text
    from clinalign.agent.tools import Fact

    last = [s for s in traced.steps if s.step == "execute" and s.attempt == traced.attempts - 1]
    facts = [(s.id, Fact.model_validate(fact)) for s in last for fact in json.loads(s.output).get("facts", [])]
    carried = [
        letter
        for letter, said in question.stated().items()
        if all(sentence.status == "supported" for sentence in check_text(said, facts))
    ]
    return carried[0] if len(carried) == 1 else None


def _outcome(
    example: Example, suite: str, system: str, letter: str | None, text: str, reason: str, cost: Mapping[str, float]
) -> Outcome:
    metrics = {name: float(value) for name, value in cost.items()}
    right = letter == example.answer
    slots = {"letter": letter, "gold": example.answer}
    return Outcome(
        example.id,
        "closed",
        suite,
        system,
        "greedy",
        0,
        "clean",
        text,
        right,
        "letter",
        reason,
        slots,
        metrics,
        len(text),
    )


def _add(costs: dict[str, dict[str, list[float]]], name: str, cost: Mapping[str, float]) -> None:
    for key, value in cost.items():
        costs.setdefault(name, {}).setdefault(key, []).append(float(value))


def _backend(recipe: AgentRecipe, stack: ExitStack) -> Any:
    from clinalign.agent.backends import EndpointBackend, VLMBackend

    if not recipe.model:
        from clinalign.llm import Client

        return EndpointBackend(stack.enter_context(Client(recipe.llm)))
    from clinalign.models import load_vlm

    vlm = load_vlm(recipe.model)
    stack.callback(vlm.close)
    return VLMBackend(vlm)


def _tools(recipe: AgentRecipe, backend: Any) -> list[Any]:
    from clinalign.agent.adapters import HTTPTool, LookAgain, SegmentationTool
    from clinalign.agent.fundus import fundus_tools

    tools: list[Any] = [*fundus_tools(), LookAgain(backend)]
    for name, given in recipe.tools.items():
        try:
            if "url" in given:
                tools.append(HTTPTool(name, given["url"], given["description"], covers=given.get("covers", ())))
            else:
                tools.append(SegmentationTool(given["segmenter"], given["findings"], name=name))
        except (KeyError, TypeError) as error:
            raise UsageError(f"tools.{name}: give url and description, or segmenter and findings") from error
    return tools


def _keeper(out: Path) -> Any:
    from clinalign.imaging.images import write_png

    def keep(name: str, mask: np.ndarray) -> str:
        path = f"agent_masks/{name.replace('/', '-')}.png"
        write_png(out / path, mask)
        return path

    return keep
