"""The state machine: retrieve -> decide -> execute -> answer -> check, and back to decide with the checker's reason.

Every state writes its rows to the trace; every loop is bounded by `retries`. Tools are proposed twice, by `decide`
and by `select`; both see the question and the tools and nothing that was retrieved or measured, so that no document
and no tool can choose tools. What stands in the answer's prompt besides the question are facts out of closed sets and
admitted statements of documents (`tools`, `documents`)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clinalign.agent.backends import Backend, Call, Reply, Request, ToolPlan
from clinalign.agent.check import Verdict, check_answer
from clinalign.agent.documents import Library, Passage
from clinalign.agent.options import AgentOptions
from clinalign.agent.tools import Fact, Image, Tool, ToolRun, run_tool
from clinalign.errors import RowError, UsageError
from clinalign.language.parse import parse
from clinalign.records import TraceStep
from clinalign.storage import canonical, key_of

Keep = Callable[[str, np.ndarray], str]
"""Writes a mask under a name and returns its path."""
LETTERS = "ABCDEFGH"
DISAGREE = "the two proposals of tools have nothing in common"
_PRESSURE = re.compile(r"(?:pressure|IOP)\D{0,12}(\d+(?:\.\d+)?)", re.I)


@dataclass(frozen=True, slots=True)
class Question:
    """One question: images uint8 [H, W, 3] and their names; `options` without letters, and what each of them states;
    `laterality`: OD, OS or ""."""

    id: str
    text: str
    images: Sequence[Image]
    options: Sequence[str] = ()
    statements: Sequence[str] = ()
    laterality: str = ""
    names: Sequence[str] = ()

    def stated(self) -> dict[str, str]:
        """Letter -> the sentence of the option; the option's own words where nothing else is given."""
        return dict(zip(LETTERS, self.statements or self.options))


@dataclass(frozen=True, slots=True)
class Traced:
    """An answer with its trace. `accepted` is the checker's last word; `calls` what was asked of the model."""

    question: str
    letter: str | None
    text: str
    verdict: Verdict
    steps: tuple[TraceStep, ...]
    attempts: int
    calls: int
    seconds: float

    @property
    def accepted(self) -> bool:
        return self.verdict.accepted

    @property
    def unsupported(self) -> int:
        """Sentences of the answer that no trace row carries."""
        return sum(sentence.status != "supported" for sentence in self.verdict.sentences)


def resolve(decided: Iterable[str], selected: Iterable[str]) -> tuple[list[str], str]:
    """The tools to run out of two proposals, and feedback: nothing where they are disjoint, their union where the
    second is larger, otherwise the first. Two empty proposals agree that no tool is needed."""
    first, second = list(dict.fromkeys(decided)), list(dict.fromkeys(selected))
    if not first and not second:
        return [], ""
    if not set(first) & set(second):
        return [], f"{DISAGREE}: {', '.join(first) or 'none'} against {', '.join(second) or 'none'}"
    return (first + [name for name in second if name not in first]) if len(second) > len(first) else first, ""


@dataclass(slots=True)
class _Work:
    """A question under way."""

    question: Question
    start: float
    calls: int
    attempt: int = 0
    feedback: str = ""
    passages: list[Passage] = field(default_factory=list)
    plan: list[Call] = field(default_factory=list)
    disagreed: str = ""
    runs: list[ToolRun] = field(default_factory=list)
    facts: list[tuple[str, Fact]] = field(default_factory=list)
    ruled_out: set[str] = field(default_factory=set)
    reply: Reply = field(default_factory=lambda: Reply(None, ""))
    verdict: Verdict | None = None
    steps: list[TraceStep] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)


class Agent:
    """Works on questions with a backend and tools. `keep` writes the masks that tools return; None keeps none."""

    def __init__(
        self, backend: Backend, tools: Sequence[Tool], options: AgentOptions | None = None, *, keep: Keep | None = None
    ) -> None:
        self.backend, self.options, self.keep = backend, options or AgentOptions(), keep
        self.system = f"{backend.name} + agent"
        self.tools = {tool.name: tool for tool in tools}
        if len(self.tools) < len(tools):
            raise UsageError("agent: two tools have one name; rename one of them")
        self.library = Library(self.options.documents) if self.options.documents else None

    def run(self, question: Question) -> Traced:
        """Answers a question. Ends after `retries` further attempts at the latest; raises only what is fatal to every
        question (`UsageError`)."""
        work = _Work(question, time.monotonic(), self.backend.calls)
        work.seen = [key_of([image.shape, image.tobytes().hex()]) for image in question.images]
        states: dict[str, Callable[[_Work], str]] = {
            "retrieve": self._retrieve,
            "decide": self._decide,
            "execute": self._execute,
            "answer": self._answer,
            "check": self._check,
        }
        state = "retrieve"
        while state != "done":
            state = states[state](work)
        assert work.verdict is not None
        calls, seconds = self.backend.calls - work.calls, time.monotonic() - work.start
        letter, text = work.reply.letter, work.reply.text
        return Traced(question.id, letter, text, work.verdict, tuple(work.steps), work.attempt + 1, calls, seconds)

    def _retrieve(self, work: _Work) -> str:
        start = time.monotonic()
        if self.library is not None:
            work.passages = self.library.search(work.question.text, self.options.passages)
            quotes = {
                "passages": [{"source": p.source, "text": p.text, "score": p.score} for p in work.passages],
                "withheld": [{"source": source, "text": text} for source, text in self.library.withheld],
            }
            self._row(work, "retrieve", "documents", {"question": work.question.text}, quotes, start)
        return "decide"

    def _decide(self, work: _Work) -> str:
        proposals: list[list[str]] = []
        arguments: dict[str, dict[str, Any]] = {}
        for step, way in (("decide", self.options.decide), ("select", self.options.select)):
            start, problem = time.monotonic(), ""
            try:
                plan = self._by_model(work, step) if way == "model" else self._by_rules(work.question)
            except RowError as error:
                plan, problem = ToolPlan(), f"{error.reason}: {error.detail}"
            unknown = [call.name for call in plan.tools if call.name not in self.tools]
            problem = problem or (f"unknown tool: {unknown[0][:60]}" if unknown else "")
            calls = [call for call in plan.tools if call.name in self.tools]
            proposals.append([call.name for call in calls])
            for call in calls:
                arguments.setdefault(call.name, call.arguments)
            who = self.backend.name if way == "model" else "rules"
            given = {"question": work.question.text, "feedback": work.feedback, "tools": sorted(self.tools)}
            self._row(work, step, who, given, {"tools": proposals[-1]}, start, problem)
        start = time.monotonic()
        names, work.disagreed = resolve(*proposals)
        work.plan = [Call(name=name, arguments=arguments.get(name, {})) for name in names]
        self._row(work, "resolve", "rules", {"proposals": proposals}, {"tools": names}, start, work.disagreed)
        last = work.attempt >= self.options.retries
        if work.disagreed and not last:
            work.feedback, work.attempt = work.disagreed, work.attempt + 1
            return "decide"
        return "execute"

    def _by_rules(self, question: Question) -> ToolPlan:
        """Tools that cover a finding or a measure which the question or its options name, with what it tells of the
        eye."""
        named = named_in(" ".join([question.text, *question.options]))
        given = {"laterality": question.laterality}
        if pressure := _PRESSURE.search(question.text):
            given["pressure"] = pressure[1]
        stem = named_in(question.text)
        calls = []
        for tool in self.tools.values():
            if tool.covers & (stem if any(t.covers & stem for t in self.tools.values()) else named):
                fields = tool.input.model_fields
                calls.append(Call(name=tool.name, arguments={k: v for k, v in given.items() if k in fields and v}))
        return ToolPlan(tools=calls)

    def _by_model(self, work: _Work, step: str) -> ToolPlan:
        listed = [
            {"name": tool.name, "description": tool.description, "arguments": tool.input.model_json_schema()}
            for tool in self.tools.values()
        ]
        task = {"decide": "Decide which tools help to answer", "select": "Select the tools needed for"}[step]
        prompt = f"{task} this question about the image. Tools:\n{json.dumps(listed)}\n\nQuestion: {work.question.text}"
        if work.feedback:
            prompt += f"\n\nAn earlier attempt was rejected: {work.feedback}."
        return self.backend.plan(prompt, work.question.images)

    def _execute(self, work: _Work) -> str:
        work.runs, work.facts = [], []
        for call in work.plan:
            start = time.monotonic()
            run = run_tool(self.tools[call.name], call.arguments, work.question.images, self.options.tool_seconds)
            work.runs.append(run)
            output = run.output.model_dump(mode="json") if run.output else {}
            masks = dict(run.output.masks) if run.output else {}
            row = self._row(work, "execute", call.name, dict(call.arguments), output, start, run.error, masks)
            work.facts += [(row, fact) for fact in (run.output.facts if run.output else ())]
        return "answer"

    def _answer(self, work: _Work) -> str:
        start, problem = time.monotonic(), ""
        asked = Request(
            work.question.text,
            work.question.images,
            data_lines([fact for _, fact in work.facts], work.passages),
            work.question.stated(),
            [letter for letter in work.question.stated() if letter not in work.ruled_out],
            work.feedback,
            [run.name for run in work.runs],
        )
        try:
            work.reply = self.backend.answer(asked)
        except RowError as error:
            work.reply, problem = Reply(None, ""), f"{error.reason}: {error.detail}"
        said = {"letter": work.reply.letter, "text": work.reply.text, "tools": work.reply.tools}
        self._row(work, "answer", self.backend.name, {"prompt": asked.prompt()}, said, start, problem)
        return "check"

    def _check(self, work: _Work) -> str:
        start = time.monotonic()
        planned = [call.name for call in work.plan]
        run = [run.name for run in work.runs]
        listed = run if work.reply.tools is None else work.reply.tools
        stated = work.question.stated()
        verdict = check_answer(
            work.reply.text, work.reply.letter, stated, work.facts, planned=planned, run=run, listed=listed
        )
        work.verdict = verdict
        sentences = [
            {"text": s.text, "status": s.status, "evidence": s.evidence, "reason": s.reason} for s in verdict.sentences
        ]
        said = {"accepted": verdict.accepted, "sentences": sentences, "refuted": verdict.refuted}
        given = {"text": work.reply.text, "letter": work.reply.letter, "facts": [row for row, _ in work.facts]}
        self._row(work, "check", "checker", given, said, start, verdict.feedback)
        if verdict.accepted or work.attempt >= self.options.retries:
            return "done"
        work.feedback, work.attempt = verdict.feedback, work.attempt + 1
        work.ruled_out |= set(verdict.refuted) | (
            {work.reply.letter} if verdict.followed and work.reply.letter else set()
        )
        if work.ruled_out >= set(stated):
            work.ruled_out = set()
        return "decide"

    def _row(
        self,
        work: _Work,
        step: str,
        who: str,
        given: Mapping[str, Any],
        output: Mapping[str, Any],
        start: float,
        problem: str = "",
        masks: Mapping[str, np.ndarray] | None = None,
    ) -> str:
        number = len(work.steps) + 1
        name = f"{work.question.id}/{number}"
        kept = (
            [self.keep(f"{name}-{key}".replace(" ", "-"), mask) for key, mask in (masks or {}).items()]
            if self.keep
            else []
        )
        work.steps.append(
            TraceStep(
                name, work.question.id, work.attempt, number, step, who,
                key_of({"given": dict(given), "images": work.seen}), canonical(dict(output)), key_of(dict(output)),
                round(time.monotonic() - start, 6), problem, list(work.question.names), kept, self.system,
            )
        )  # fmt: skip
        return name


def data_lines(facts: Sequence[Fact], passages: Sequence[Passage]) -> list[str]:
    """What an answer is given besides the question: facts in words, admitted statements in quotes."""
    lines = [f"measured: {line}" for line in dict.fromkeys(fact.line() for fact in facts)]
    return lines + [f"document: {json.dumps(passage.text)}" for passage in passages]


def named_in(text: str) -> set[str]:
    """The findings and measures that a text names."""
    from clinalign.agent.words import ALIASES

    named = {m.value for m in parse(text).mentions if m.kind == "finding"}
    return named | {name for name, pattern in ALIASES.items() if re.search(rf"\b{pattern}", text, re.I)}
