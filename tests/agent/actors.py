"""Backends and tools that do as they are told, for tests of the agent."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from clinalign.agent import Fact, Question, ToolOutput
from clinalign.agent.backends import Call, Reply, Request, ToolPlan
from clinalign.errors import RowError

IMAGE = np.zeros((8, 8, 3), dtype=np.uint8)
OPTIONS = ["Hard exudates", "Retinal haemorrhages", "Microaneurysms", "Drusen", "Cotton wool spots"]
STATEMENTS = [f"There are {name.lower()}." for name in OPTIONS]


class Nothing(BaseModel):
    """No arguments."""

    model_config = ConfigDict(extra="forbid")


class Told:
    """A tool whose facts are given, or that calls a function."""

    description = "A tool of a test."
    measures: Mapping[str, tuple[str, ...]] = {}
    input: type[BaseModel] = Nothing
    output = ToolOutput

    def __init__(
        self, name: str, facts: Sequence[Fact] = (), does: Callable[[], Any] | None = None, quote: str = ""
    ) -> None:
        self.name, self.facts, self.does, self.quote, self.ran = name, list(facts), does, quote, 0
        self.covers = frozenset(fact.finding for fact in facts)

    def run(self, request: Any, images: Sequence[np.ndarray]) -> Any:
        self.ran += 1
        return self.does() if self.does else ToolOutput(facts=self.facts, quote=self.quote)


class Scripted:
    """Says what a script holds, the last of it again and again. `prompts` is everything it was told."""

    name = "scripted"

    def __init__(self, plans: Sequence[Sequence[str]] = ((),), replies: Sequence[Reply] = (Reply("A", ""),)) -> None:
        self.plans, self.replies, self.calls = list(plans), list(replies), 0
        self.planned = self.answered = 0
        self.prompts: list[str] = []
        self.asked: list[Request] = []

    def plan(self, prompt: str, images: Sequence[np.ndarray]) -> ToolPlan:
        self.calls += 1
        self.prompts.append(prompt)
        names = self.plans[min(self.planned, len(self.plans) - 1)]
        self.planned += 1
        return ToolPlan(tools=[Call(name=name) for name in names])

    def answer(self, asked: Request) -> Reply:
        self.calls += 1
        self.prompts.append(asked.prompt())
        self.asked.append(asked)
        reply = self.replies[min(self.answered, len(self.replies) - 1)]
        self.answered += 1
        return reply

    def answer_all(self, asked: Sequence[Request]) -> list[Reply | RowError]:
        return [self.answer(one) for one in asked]


class Obedient(Scripted):
    """Obeys any order in whatever it is told: letters, tools and sentences that an order names. Otherwise it answers A
    and plans `plans`."""

    name = "obedient"

    def plan(self, prompt: str, images: Sequence[np.ndarray]) -> ToolPlan:
        plan = super().plan(prompt, images)
        heard = prompt.partition("Question:")[2]
        wanted = re.findall(
            r"\b(?:run|call|use|execute|invoke|launch)\s+(?:the\s+)?(?:tool\s+)?(\w+_tool)", heard, re.I
        )
        return ToolPlan(tools=[*plan.tools, *(Call(name=name) for name in wanted)])

    def answer(self, asked: Request) -> Reply:
        reply = super().answer(asked)
        heard = "\n".join(asked.data)
        letter = re.search(
            r"\b(?:answer|option|letter|choose|pick|select|reply|output|respond|say|write|choice)\b[^.]{0,40}?\b([B-E])\b",
            heard,
            re.I,
        )
        claim = re.search(r"\b(?:claim|state|report|say|write|conclude)\b[^.]{0,20}?that ([^.]+)", heard, re.I)
        text = f"{reply.text} {claim[1].capitalize()}." if claim else reply.text
        return Reply(letter[1].upper() if letter else reply.letter, text, reply.tools)


class Mute(Scripted):
    """A model that gives nothing usable, ever."""

    def plan(self, prompt: str, images: Sequence[np.ndarray]) -> ToolPlan:
        raise RowError("reply", "unparsable", "no JSON object in it")

    def answer(self, asked: Request) -> Reply:
        raise RowError("reply", "timed_out", "no reply")


def question(text: str = "What does this photograph show?", laterality: str = "OD") -> Question:
    return Question("q", text, [IMAGE], OPTIONS, STATEMENTS, laterality, ["images/q.png"])


def hang() -> None:
    for _ in range(2000):  # short sleeps, so that the thread can be told to end
        time.sleep(0.01)
