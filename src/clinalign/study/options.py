"""Settings of a sweep. Light to import: recipes are read before anything heavy is loaded."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

ROOTS = ("align", "pair", "corrupt")
"""Groups of the recipe that a sweep may vary: what is asked and how it is judged stay the same for all."""


class RuleOptions(BaseModel):
    """The written rule by which dev chooses."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    metric: str = Field(
        "right",
        description="The metric whose highest mean on dev wins; accuracy leaves out answers that the judge cannot read",
    )
    within: float = Field(
        0.0, ge=0, description="Settings this close to the best count as equal; of them the least `then` wins"
    )
    then: str = Field("drift_rest", description="The metric whose lowest mean decides among equals")
    least: dict[str, float] = Field(
        default_factory=dict,
        description="A metric and the least mean on dev that a setting must have to be chosen, where any has it",
    )
    most: dict[str, float] = Field(default_factory=dict, description="The same with the largest mean")

    @property
    def metrics(self) -> list[str]:
        """All that the rule names."""
        return [self.metric, self.then, *self.least, *self.most]

    def sentence(self) -> str:
        """The rule in words."""
        bounds = [f"{name} at least {value:g}" for name, value in self.least.items()]
        bounds += [f"{name} at most {value:g}" for name, value in self.most.items()]
        among = f", of those with {' and '.join(bounds)} where there are any" if bounds else ""
        close = f"; of those within {self.within:g} of it" if self.within else "; of equals"
        return f"The highest {self.metric} on dev{among}{close} the lowest {self.then}, then the first in the grid."


class SweepOptions(BaseModel):
    """What `clinalign sweep` tries. `systems` are compared with each other; dev chooses one setting for each."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    systems: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="A name, and dotted keys of align, pair or corrupt with a value, or with a list of values to try, "
        "for example keep: {align.method: keep, align.alpha: [1, 4, 16]}; none: the recipe's own method",
    )
    grid: dict[str, list[Any]] = Field(
        default_factory=dict, description="Dotted keys and the values to try with every system that does not set them"
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        default=[0, 1, 2], min_length=1, description="Seeds of the chosen settings: first weights, dropout, order"
    )
    dev_seeds: int = Field(1, ge=1, description="How many of the seeds the choice on dev is made with")
    dev: str = Field("dev", description="Split that settings are chosen on")
    tests: list[str] = Field(
        default=["test"], min_length=1, description="Splits that are read once, with what dev chose; the first counts"
    )
    kept: str = Field("", description="Split of other tasks, read with test: the loss on its answers is forgetting")
    first: str = Field("", description="System that is tested against all others; empty: the one that dev ranks first")
    matched: list[str] = Field(
        default_factory=list,
        description="Systems of which dev chooses a second setting, NAME_matched: the rule's among those that drift no "
        "more than what it chose for the first system, or the least drifting",
    )
    halving: int = Field(
        0, ge=0, description="Successive halving: first all settings at a fraction of the steps, one of so many goes on"
    )
    rule: RuleOptions = Field(default_factory=RuleOptions, description="How dev chooses")
    workers: int = Field(1, ge=1, description="Trainings side by side; no number depends on it")
    threads: int = Field(1, ge=0, description="Threads of a worker; 0: torch's choice")

    @property
    def asked(self) -> list[str]:
        """The splits that are asked: dev, tests, kept."""
        return [self.dev, *self.tests, *filter(None, [self.kept])]

    @model_validator(mode="after")
    def _consistent(self) -> SweepOptions:
        if len(set(self.asked)) < len(self.asked):
            raise ValueError("dev, tests and kept are different splits: what chooses is not what is reported")
        if "align" in self.asked:
            raise ValueError("dev, tests and kept: align is what is trained on; name other splits")
        if self.matched and self.halving:
            raise ValueError(
                "matched chooses among all settings of a system, and halving trains few of them in full; leave one out"
            )
        if self.dev_seeds > len(self.seeds):
            raise ValueError(f"dev_seeds {self.dev_seeds}, but there are {len(self.seeds)} seeds")
        if self.halving == 1:
            raise ValueError("halving is 0 (off) or 2 and more")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one is named twice")
        if self.first and self.first not in self.systems:
            raise ValueError(f"first: there is no system '{self.first}'; name one of systems")
        for name in self.matched:
            if name not in self.systems:
                raise ValueError(f"matched: there is no system '{name}'; name some of systems")
            if f"{name}_matched" in self.systems:
                raise ValueError(f"matched: '{name}_matched' is a system of its own; rename it")
        named = [*self.grid, *(key for keys in self.systems.values() for key in keys)]
        for key in named:
            if key.partition(".")[0] not in ROOTS or "." not in key:
                raise ValueError(f"'{key}' cannot be varied; a sweep varies keys such as align.lr or corrupt.kind")
        return self
