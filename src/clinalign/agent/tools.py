"""What a tool is, and how one is run: typed input, typed output, a time limit, and no error of a tool is fatal.

What a tool finds travels as `Fact`s, values out of closed sets: a finding of the concept graph or a measure that the
tool declares. Facts alone reach a model and the checker. A tool's free text stays in `quote`, which is shown and
never read."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clinalign.errors import first_line
from clinalign.language.graph import CONCEPTS

Image = npt.NDArray[np.uint8]
CORNERS = ("superior nasal", "superior temporal", "inferior nasal", "inferior temporal")
Corner = Literal["superior nasal", "superior temporal", "inferior nasal", "inferior temporal"]
MOST_FACTS = 200


class Fact(BaseModel):
    """One thing that a tool found: a finding, present or absent, or a measure with its value.

    `laterality`: OD (right eye), OS (left), "" not known; `corners`: the quadrants that a finding lies in; `count`: how
    many; `severity`: mild, moderate or severe; `value`: of a measure, a number or one of the values it declares.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    finding: str
    status: Literal["present", "absent"] = "present"
    laterality: Literal["", "OD", "OS"] = ""
    corners: tuple[Corner, ...] = ()
    count: int | None = Field(None, ge=0)
    severity: Literal["", "mild", "moderate", "severe"] = ""
    value: float | str | None = None

    def line(self) -> str:
        """The fact in words, for a model to read."""
        eye = {"OD": ", right eye", "OS": ", left eye"}.get(self.laterality, "")
        if self.value is not None:
            return (
                f"{self.finding}: {self.value:g}{eye}"
                if not isinstance(self.value, str)
                else (f"{self.finding}: {self.value}{eye}")
            )
        parts = [f"{self.finding}: {self.status}"]
        parts += [self.severity] * bool(self.severity) + [f"{self.count} of them"] * (self.count is not None)
        parts += [f"in {'; '.join(self.corners)}"] * bool(self.corners)
        return ", ".join(parts) + eye


class ToolOutput(BaseModel):
    """What a tool returns: `facts`, masks bool [H, W] by name, and a `quote` that nothing reads."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    facts: list[Fact] = Field(default_factory=list, max_length=MOST_FACTS)
    quote: str = ""
    masks: dict[str, Any] = Field(default_factory=dict, exclude=True)


class Tool(Protocol):
    """`covers`: the findings and measures it can speak of; `measures`: measure -> its values (none: a number).

    `run` gets an object of `input` and the question's images, uint8 [H, W, 3], read-only; it returns one of `output`.
    """

    name: str
    description: str
    covers: frozenset[str]
    measures: Mapping[str, tuple[str, ...]]
    input: type[BaseModel]
    output: type[ToolOutput]

    def run(self, request: Any, images: Sequence[Image]) -> ToolOutput: ...


@dataclass(frozen=True, slots=True)
class ToolRun:
    """One call: `output` or `error` ("bad_arguments", "raised", "timed_out" or "nonsense", and why)."""

    name: str
    arguments: Mapping[str, Any]
    output: ToolOutput | None
    error: str
    seconds: float


def run_tool(tool: Tool, arguments: Mapping[str, Any], images: Sequence[Image], seconds: float) -> ToolRun:
    """Runs a tool in a thread of its own, for `seconds` at most. Whatever is wrong with it is in `error`."""
    from clinalign.models.guard import within

    start = time.monotonic()

    def done(output: ToolOutput | None, problem: str = "") -> ToolRun:
        return ToolRun(tool.name, dict(arguments), output, problem, time.monotonic() - start)

    try:
        request = tool.input.model_validate(dict(arguments))
    except ValidationError as error:
        return done(None, f"bad_arguments: {_first(error)}")
    shown = [image.copy() for image in images]
    for image in shown:
        image.setflags(write=False)
    try:
        raw = within(seconds, lambda: tool.run(request, shown))
    except TimeoutError as error:
        return done(None, f"timed_out: {error}")
    except BaseException as error:  # a tool may be anything, SystemExit included
        if isinstance(error, KeyboardInterrupt):
            raise
        return done(None, f"raised: {type(error).__name__}: {first_line(error)}"[:200])
    try:
        output = tool.output.model_validate(raw.__dict__ if isinstance(raw, BaseModel) else raw)
        problem = nonsense(tool, output, images)
    except (ValidationError, TypeError, AttributeError, RecursionError) as error:
        problem = _first(error) if isinstance(error, ValidationError) else first_line(error)
    return done(None, f"nonsense: {problem}"[:200]) if problem else done(output)


def nonsense(tool: Tool, output: ToolOutput, images: Sequence[Image]) -> str:
    """What in an output cannot be: a finding nobody knows, a value outside its measure's, a mask of another size."""
    for fact in output.facts:
        values = tool.measures.get(fact.finding)
        if values is None and (fact.finding not in CONCEPTS or fact.value is not None):
            return "a finding that neither the concept graph nor the tool's measures know"
        if values == () and (isinstance(fact.value, str) or fact.value is None or not math.isfinite(fact.value)):
            return f"{fact.finding} is no number"
        if values and fact.value not in values:
            return f"{fact.finding} is none of {', '.join(values)}"
    sizes = {image.shape[:2] for image in images}
    for mask in output.masks.values():
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape not in sizes:
            return "a mask is bool [H, W] of an image's size"
    return ""


def _first(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'object'}: {first['msg']}"
