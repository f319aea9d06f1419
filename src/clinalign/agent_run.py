"""`clinalign agent`: every question of a set, asked of a model alone and of the agent around it.

    examples.parquet  outcomes.parquet  trace.parquet  agent_masks/  evaluation/eh.json  agent.html

A recipe has its own few keys: `data`, `model` and `llm` (either or both are asked), `agent`, and how many questions. In
the folder of a run all this goes into its folder `agent`, and the run's page gets a section.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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

TOGETHER = 32
"""Questions put to a model alone at once; its seconds are shared among them."""


class AgentRecipe(BaseModel):
    """What is asked of whom."""

    model_config = ConfigDict(extra="forbid")

    data: DataOptions = Field(default_factory=lambda: DataOptions(source="phantom_fundus", splits={"test": 20}))
    model: str = Field("embedded", description="Folder or hub name of a model; empty: only the endpoint of `llm`")
    adapter: str = Field("", description="Folder of an adapter of that model, such as RUN/adapter")
    llm: LLMOptions = Field(
        default_factory=lambda: LLMOptions(), description="With base_url, this endpoint is asked, after the model"
    )
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
        if not self.model and not self.llm.base_url:
            raise ValueError("nobody is asked; set model or llm.base_url")
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


def agent_folder(out: Path) -> Path:
    """Where the agent's files go: `out`, or where that is a run's folder, the folder `agent` in it."""
    return out / "agent" if (out / "run.json").is_file() else out


def run_agent(recipe: AgentRecipe, target: Path) -> dict[str, Any]:
    """Asks every question, writes the folder, returns `evaluation/eh.json`; a run's page is written anew."""
    from clinalign.agent.loop import Agent
    from clinalign.data import stream
    from clinalign.pages import write_report
    from clinalign.pages.agent import write_agent_page
    from clinalign.storage import Quarantine, write_json, write_table, write_text

    out = agent_folder(target)

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
        backends = _backends(recipe, stack)
        outcomes: list[Outcome] = []
        steps: list[TraceStep] = []
        costs: dict[str, dict[str, list[float]]] = {}
        for number, backend in enumerate(backends):
            agent = Agent(backend, _tools(recipe, backend), recipe.agent, keep=_keeper(out, number))
            said, traced, cost = ask_all(agent, examples, out, fixed_order=recipe.fixed_order)
            outcomes, steps, costs = outcomes + said, steps + traced, costs | cost
    result = summary_of(outcomes, examples, costs, [backend.name for backend in backends], recipe.seed)
    write_table(out / "examples.parquet", examples, Example)
    write_table(out / "outcomes.parquet", outcomes, Outcome)
    write_table(out / "trace.parquet", steps, TraceStep)
    write_json(out / "evaluation" / "eh.json", result)
    write_text(out / "agent.json", json.dumps(recipe.model_dump(mode="json"), indent=2) + "\n")
    write_agent_page(out)
    if out != target:
        write_report(target)
    return result


def ask_all(
    agent: Any, examples: Iterable[Example], folder: Path, *, fixed_order: bool = False
) -> tuple[list[Outcome], list[TraceStep], dict[str, dict[str, list[float]]]]:
    """Outcomes of the bare model and of the agent, the trace, and what each question cost."""
    from clinalign.agent.loop import Question
    from clinalign.evaluation.suites.eh import FIXED
    from clinalign.evaluation.suites.eh import fixed_order as in_fixed_order
    from clinalign.imaging.images import read_image
    from clinalign.progress import track

    system = agent.system
    items = list(examples)
    asked = [(e, "clean") for e in items]
    asked += [(in_fixed_order(e), FIXED) for e in items if fixed_order and e.fixed_order]

    def images_of(example: Example) -> list[np.ndarray]:
        return [read_image(folder / name) for name in example.images]

    outcomes, costs = _alone(agent.backend, asked, images_of)
    steps: list[TraceStep] = []
    for example in track(items, system):
        question = Question(
            example.id, example.question, images_of(example), example.options, example.statements,
            example.laterality, example.images,
        )  # fmt: skip
        traced = agent.run(question)
        cost = {
            "calls": traced.calls,
            "seconds": traced.seconds,
            "unsupported": traced.unsupported,
            "attempts": traced.attempts,
            "tools_alone": _by_tools_alone(traced, question) == example.answer,
        }
        reason = "" if traced.accepted else traced.verdict.feedback
        outcomes.append(_outcome(example, "clean", system, traced.letter, traced.text, reason, cost))
        _add(costs, system, cost)
        steps += traced.steps
    return outcomes, steps, costs


def _alone(
    backend: Any, asked: Sequence[tuple[Example, str]], images_of: Callable[[Example], list[np.ndarray]]
) -> tuple[list[Outcome], dict[str, dict[str, list[float]]]]:
    """The model alone: the same questions in the same form, `TOGETHER` at a time, without facts, documents or checker.
    Nothing carries a sentence of its answers."""
    from clinalign.agent.backends import Request
    from clinalign.agent.check import check_text
    from clinalign.progress import track

    outcomes: list[Outcome] = []
    costs: dict[str, dict[str, list[float]]] = {}
    parts = [asked[i : i + TOGETHER] for i in range(0, len(asked), TOGETHER)]
    for part in track(parts, backend.name):
        requests = [
            Request(e.question, images_of(e), (), dict(zip("ABCDEFGH", e.statements or e.options))) for e, _ in part
        ]
        start, before = time.monotonic(), backend.calls
        replies = backend.answer_all(requests)
        each = {"calls": (backend.calls - before) / len(part), "seconds": (time.monotonic() - start) / len(part)}
        for (example, condition), reply in zip(part, replies, strict=True):
            failed = isinstance(reply, RowError)
            letter, text = (None, "") if failed else (reply.letter, reply.text)
            cost = each | {"unsupported": len(check_text(text, []))}
            reason = f"{reply.reason}: {reply.detail}" if failed else ""
            outcomes.append(_outcome(example, condition, backend.name, letter, text, reason, cost))
            if condition == "clean":
                _add(costs, backend.name, cost)
    return outcomes, costs


def summary_of(
    outcomes: Sequence[Outcome],
    examples: Sequence[Example],
    costs: Mapping[str, Mapping[str, Sequence[float]]],
    names: Sequence[str],
    seed: int = 0,
) -> dict[str, Any]:
    """The suite's numbers, the agent's gain over each model of `names` with its interval (`gain`: the first's), and
    the costs: calls, seconds, unsupported an answer."""
    from clinalign.data.sources.eh import items_hash
    from clinalign.evaluation.suites.eh import gain, summarise_eh

    gains = {name: gain(outcomes, examples, f"{name} + agent", name, seed=seed).as_dict() for name in names}
    return {
        **summarise_eh(outcomes, examples, seed=seed),
        "items_hash": items_hash(examples),
        "gain": gains[names[0]],
        "gains": gains,
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
            f"{cost.get('calls', 0):.1f} calls, {cost.get('seconds', 0):.2f} s a question, "
            f"{cost.get('unsupported', 0):.2f} unsupported an answer"
        )
    for name, found in result["gains"].items():
        lines.append(f"gain of the agent over {name} {_percent(found)} points")
    lines.append(f"{result['items']} items {result['items_hash'][:12]}")
    return "\n".join(lines)


def _percent(interval: Mapping[str, Any]) -> str:
    if interval["low"] is None:
        return f"{100 * interval['estimate']:.1f}"
    return f"{100 * interval['estimate']:.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


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
    example: Example, condition: str, system: str, letter: str | None, text: str, reason: str, cost: Mapping[str, float]
) -> Outcome:
    metrics = {name: float(value) for name, value in cost.items()}
    right = letter == example.answer
    slots = {"letter": letter, "gold": example.answer}
    return Outcome(
        example.id,
        "closed",
        "eh",
        system,
        "greedy",
        0,
        condition,
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


def _backends(recipe: AgentRecipe, stack: ExitStack) -> list[Any]:
    """Whom the recipe asks: the model, the endpoint, or both."""
    from clinalign.agent.backends import EndpointBackend, VLMBackend

    found: list[Any] = []
    if recipe.model:
        from clinalign.models import load_vlm

        vlm = load_vlm(recipe.model, adapter=Path(recipe.adapter) if recipe.adapter else None)
        stack.callback(vlm.close)
        found.append(VLMBackend(vlm))
    if recipe.llm.base_url:
        from clinalign.llm import Client

        found.append(EndpointBackend(stack.enter_context(Client(recipe.llm))))
    if len({backend.name for backend in found}) < len(found):
        raise UsageError(f"model and llm.model are both called {found[0].name}; give one of them another name")
    return found


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


def _keeper(out: Path, number: int) -> Any:
    from clinalign.imaging.images import write_png

    def keep(name: str, mask: np.ndarray) -> str:
        path = f"agent_masks/{number}/{name.replace('/', '-')}.png"
        write_png(out / path, mask)
        return path

    return keep
