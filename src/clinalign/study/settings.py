"""What a sweep tries, as recipes, and how dev chooses among them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clinalign.errors import UsageError, nearest
from clinalign.evaluation.metrics import ABLATIONS, METRICS, PAINTED, own_metrics
from clinalign.evaluation.scores import conditions_of
from clinalign.preflight.finding import Finding
from clinalign.preflight.settings import service_findings, setting_findings
from clinalign.recipe import Recipe, label_error, validated
from clinalign.stages.corpus import with_ladder
from clinalign.storage import key_of
from clinalign.study.options import RuleOptions, SweepOptions
from clinalign.training.options import TrainOptions

LEFT_OUT = {"compare", "sweep", "evaluate", "align", "name", "seed", "strict", "engine"}
"""Keys of a recipe that its pairs do not depend on."""
NOT_ON_DEV = {"truth_nll", "balanced_accuracy", "bleu"}
"""Metrics of a whole set, or of other questions: dev, which is averaged question by question, has none of them."""


@dataclass(frozen=True)
class Setting:
    """One thing to try: the `keys` that were varied within a system, and the recipe that they make."""

    system: str
    keys: Mapping[str, Any]
    recipe: Recipe

    @property
    def name(self) -> str:
        """What tables call it: its system and what was varied."""
        varied = ", ".join(f"{key.rpartition('.')[2]} {_shown(value)}" for key, value in self.keys.items())
        return f"{self.system}: {varied}" if varied else self.system

    @property
    def corpus(self) -> str:
        """What its pairs are made of, as a key."""
        return key_of(self.recipe.model_dump(mode="json", exclude=LEFT_OUT))


def findings_of(
    settings: Sequence[Setting], known: Sequence[Finding], done: frozenset[str] = frozenset()
) -> list[Finding]:
    """What a run of each setting would say before it starts, each once, with the setting's name; `known` is what
    the recipe's own says, `done` are stages that need not be run again. A setting without an adapter is refused: its
    drift from the base could not be measured.
    """
    seen, asked, found = set(known), set(), list[Finding]()
    for setting in settings:
        recipe, align = setting.recipe, setting.recipe.align
        findings = setting_findings(recipe)
        services = key_of([recipe.pair.model_dump(mode="json"), recipe.corrupt.model_dump(mode="json")])
        services += key_of([align.model_dump(mode="json", include={"distill", "report_to"})])
        if services not in asked:  # a service is asked over the network, which takes its time
            asked.add(services)
            findings += service_findings(recipe, done)
        if align.tune == "full" or "language" not in align.train:
            field = "align.tune" if align.tune == "full" else "align.train"
            text = "a sweep measures drift by switching the language model's adapter off, and this trains none; set "
            text += "align.tune=lora and language in align.train"
            findings.append(Finding("refused", "training", field, text))
        for finding in findings:
            if finding not in seen:
                seen.add(finding)
                found.append(replace(finding, text=f"{finding.text} (sweep: '{setting.name}')"))
    return found


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_of(recipe: Recipe) -> list[Setting]:
    """Every setting of every system of a recipe's sweep, in order. Raises `UsageError` for a key or value that is none,
    for two that are the same, and for a rule that dev cannot answer."""
    options = recipe.sweep or SweepOptions()
    _check_rule(recipe, options.rule)
    systems = options.systems or {recipe.align.label: {}}
    found: list[Setting] = []
    for system, own in systems.items():
        if error := label_error(system):
            raise UsageError(f"sweep.systems: '{system[:64]}' {error}; rename it")
        given = {key: values for key, values in options.grid.items() if key not in own} | own
        varied = {key: values for key, values in given.items() if isinstance(values, list)}
        fixed = {key: value for key, value in given.items() if key not in varied}
        for key, values in varied.items():
            if not values:
                raise UsageError(f"sweep: {system}: {key} has no value to try")
        for chosen in itertools.product(*varied.values()):
            tried = dict(zip(varied, chosen, strict=True))
            found.append(Setting(system, tried, _recipe(recipe, system, fixed | tried)))
    if any(s.recipe.align.seed_model is not None or s.recipe.align.seed_data is not None for s in found):
        raise UsageError("sweep: align.seed_model and align.seed_data would be one for all of sweep.seeds; leave out")
    sampled = next((s.system for s in found if s.recipe.align.reinforce is not None), None)
    if sampled is not None:
        raise UsageError(
            f"sweep: system '{sampled}' has align.reinforce, and a sweep trains on pairs alone; set it to null, and "
            "reinforce with `clinalign run` or `clinalign reinforce`"
        )
    names = [setting.name for setting in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"sweep: '{twice}' is tried twice; name each value once")
    return found


def _check_rule(recipe: Recipe, rule: RuleOptions) -> None:
    """Raises `UsageError` for a metric that no system has on dev: a word that is none, or one of what is not asked."""
    own = {metric.name for metric in own_metrics(recipe.evaluate.metrics)}
    known = own | {m.name for m in METRICS if m.group == ("metrics",) or conditions_of(m.name)[0]} - NOT_ON_DEV
    asked: set[str] = {*recipe.evaluate.ablations, *recipe.evaluate.flips}
    asked |= {PAINTED[name] for name in asked if name in PAINTED}
    for name in () if recipe.evaluate.external else rule.metrics:
        of, said = conditions_of(name)
        if missing := sorted(of - asked):
            where = "ablations" if missing[0] in ABLATIONS else "flips"
            raise UsageError(f"sweep.rule: '{name}' is not measured on dev; add {missing[0]} to evaluate.{where}")
        if said and not recipe.evaluate.flip_answers:
            raise UsageError(f"sweep.rule: '{name}' is not measured on dev; set evaluate.flip_answers=true")
        if not of and name not in known and not name.startswith("accuracy_"):
            raise UsageError(f"sweep.rule: '{name}' is not measured on dev{nearest(name, known)}")


def asked_by(recipe: Recipe, rule: RuleOptions) -> dict[str, Any]:
    """Keys of `evaluate` under which dev is asked no more than the rule needs."""
    needs = [conditions_of(name) for name in rule.metrics]
    of = set().union(*(conditions for conditions, _ in needs))
    flips = [name for name in recipe.evaluate.flips if name in of or PAINTED.get(name) in of]
    asked: dict[str, Any] = {"flips": flips, "ablations": [name for name in recipe.evaluate.ablations if name in of]}
    if flips:  # no rule names a further level of the noise
        answers = recipe.evaluate.flip_answers and any(said for _, said in needs)
        asked |= {"flip_answers": answers, "flip_levels": []}
    return asked


def _recipe(recipe: Recipe, system: str, keys: Mapping[str, Any]) -> Recipe:
    """The recipe with dotted keys set; weights of the method that stay open are the method's own."""
    where = f"sweep.systems.{system}"
    values = recipe.model_dump(mode="json", exclude={"align", "sweep", "compare"})
    align: dict[str, Any] = {}
    for key, value in keys.items():
        root, *path = key.split(".")
        below = align if root == "align" else values[root]
        for name in path[:-1]:
            below = below.setdefault(name, {})
            if not isinstance(below, dict):
                raise UsageError(f"{where}: {key}: '{name}' is a value, not a group of keys")
        below[path[-1]] = value
    made = validated(Recipe, values, where).model_copy(update={"align": recipe.varied(align, where)})
    return made.model_copy(update={"corrupt": with_ladder(made)})


def scaled(options: TrainOptions, share: float) -> TrainOptions:
    """The options for a share of their steps; the learning rate's schedule ends with them."""
    if share >= 1:
        return options
    update: dict[str, Any] = {"epochs": options.epochs * share}
    if options.max_tokens:
        update = {"max_tokens": max(1, round(options.max_tokens * share))}
    elif options.max_steps:
        update = {"max_steps": max(1, round(options.max_steps * share))}
    return options.model_copy(update=update)


def rungs(count: int, halving: int) -> list[float]:
    """The shares of the steps that successive halving goes through: 9 settings at 3 are [1/9, 1/3, 1], 1 is [1]."""
    shares = [1.0]
    while halving and count > 1:
        count = -(-count // halving)
        shares.insert(0, shares[0] / halving)
    return shares


def check_measured(rows: Sequence[Mapping[str, float]], rule: RuleOptions, *, asked: bool = False) -> None:
    """Raises `UsageError` for a metric of the rule that no row of dev means has; `asked`: of those alone that hang on
    what is asked and of whom, and not on whether the answers can be read."""
    known = sorted(set().union(*rows))
    names = [name for name in rule.metrics if not asked or name.startswith("accuracy_") or conditions_of(name)[0]]
    missing = next((name for name in names if name not in known), None)
    if missing is not None:
        raise UsageError(f"sweep.rule: '{missing}' was not measured on dev; there are {', '.join(known)}")


def ranked(rows: Sequence[Mapping[str, float]], rule: RuleOptions) -> list[int]:
    """All indexes of rows of dev means, the rule's choice first, then its choice among the others, and so on; last, in
    their order, those that lack a metric of the rule: a model that broke has no mean of what cannot be read.

    right .90, .91, .80 with drift .1, .5, 0 and within .02: the first two are equal, the first drifts less.
    """
    left = [i for i, row in enumerate(rows) if all(name in row for name in rule.metrics)]
    lacking = [i for i in range(len(rows)) if i not in left]
    order: list[int] = []
    while left:
        allowed = [i for i in left if _allowed(rows[i], rule)] or left
        best = max(rows[i][rule.metric] for i in allowed)
        equal = [i for i in allowed if rows[i][rule.metric] >= best - rule.within - 1e-9]
        order.append(min(equal, key=lambda i: (rows[i][rule.then], i)))
        left.remove(order[-1])
    return order + lacking


def matched(rows: Sequence[Mapping[str, float]], rule: RuleOptions, limit: float) -> tuple[int, bool]:
    """The index that the rule picks among the rows whose `rule.then` is at most `limit`, or else the least of it; and
    whether any met the limit.

    right .9, .8, .7 with drift .5, .2, .1: limit .3 gives the second, limit .05 the third, which does not meet it.
    """
    least = [row.get(rule.then, math.inf) for row in rows]
    within = [i for i, value in enumerate(least) if value <= limit + 1e-9]
    chosen = within or [min(range(len(rows)), key=lambda i: least[i])]
    return chosen[ranked([rows[i] for i in chosen], rule)[0]], bool(within)


def _allowed(row: Mapping[str, float], rule: RuleOptions) -> bool:
    enough = all(row[name] >= value - 1e-9 for name, value in rule.least.items())
    return enough and all(row[name] <= value + 1e-9 for name, value in rule.most.items())
