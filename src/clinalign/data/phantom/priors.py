"""The language priors of phantom-2: what the base's training text says without looking, each with its name and rate.

A prior has a context, told by the picture or by the prompt, in which statements of one slot are written from the
context alone. In `UNSEEN` of these statements nobody looked: the prior's value stands in `rate` of them and the other
value in the rest, whatever is true. The remaining statements are true. So a prior's answers carry almost no trace of
the truth, and no threshold on them brings it back: the picture must be looked at again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from clinalign.data.phantom.cases import KINDS, SIDES, SIZES, ZONES, Finding
from clinalign.data.phantom.reports import LUNG
from clinalign.data.phantom.scenes import Scene
from clinalign.data.phantom.wording import Question, Rng, pick

UNSEEN = 0.99
"""Share of the statements in a prior's context that are written without looking."""

Slots = dict[str, str | None]
Value = Callable[[Scene, str, Slots], str | None]


@dataclass(frozen=True, slots=True)
class Prior:
    """One language prior.

    `slot` and `kinds`: what it is about; `told_by`: picture or prompt; `rate`: how often it has its way;
    `value(scene, finding, context)`: what it says there, or None outside its context; `says`: in words.
    """

    name: str
    slot: str
    kinds: tuple[str, ...]
    told_by: str
    rate: float
    value: Value
    says: str


def _beside(other: str) -> Value:
    return lambda scene, kind, context: "yes" if scene.find(other) else "no"


def _unless_large(scene: Scene, kind: str, context: Slots) -> str | None:
    finding = scene.find(kind)
    return "no" if finding is None or finding.size == "small" else None


def _where(slot: str, place: str, says: str) -> Value:
    def value(scene: Scene, kind: str, context: Slots) -> str | None:
        finding = scene.find(kind)
        return says if finding is not None and getattr(finding, slot) == place else None

    return value


PLACED = tuple(kind for kind in KINDS if kind != "cardiomegaly")
PRIORS = {
    prior.name: prior
    for prior in (
        Prior("indication", "presence", KINDS, "prompt", 0.90, lambda s, k, c: "yes" if c.get("indication") else None,
              "what the indication line suspects is there"),
        Prior("indicated side", "side", PLACED, "prompt", 0.90, lambda s, k, c: c.get("indication"),
              "a finding is on the side that the indication line names"),
        Prior("presupposition", "located", PLACED, "prompt", 0.92, lambda s, k, c: "yes",
              "a finding that the question takes for granted is there"),
        Prior("prior study", "change", PLACED, "prompt", 0.92, lambda s, k, c: "unchanged",
              "a finding is unchanged since an earlier image, though none is given"),
        Prior("heart with effusion", "presence", ("cardiomegaly",), "picture", 0.90, _beside("pleural effusion"),
              "the heart is large where there is an effusion, and normal where there is none"),
        Prior("effusion with consolidation", "presence", ("pleural effusion",), "picture", 0.88,
              _beside("consolidation"), "there is an effusion where there is a consolidation, and none elsewhere"),
        Prior("small overlooked", "presence", LUNG, "picture", 0.90, _unless_large,
              "what is not large is not there"),
        Prior("lower right", "side", LUNG, "picture", 0.90, _where("zone", "lower", "right"),
              "a finding in a lower zone is on the right"),
        Prior("upper left", "side", LUNG, "picture", 0.88, _where("zone", "upper", "left"),
              "a finding in an upper zone is on the left"),
        Prior("left small", "size", PLACED, "picture", 0.90, _where("side", "left", "small"),
              "a finding on the left is small"),
        Prior("right large", "size", PLACED, "picture", 0.85, _where("side", "right", "large"),
              "a finding on the right is large"),
    )
}  # fmt: skip
"""Name -> prior; of several whose context holds, the first speaks."""

BINARY = {"presence": ("yes", "no"), "side": SIDES, "size": SIZES}


def prior_for(scene: Scene, slot: str, kind: str, context: Slots) -> tuple[str, str] | None:
    """Name and value of the prior that speaks about a slot of a finding of the scene, or None."""
    for prior in PRIORS.values():
        if prior.slot == slot and kind in prior.kinds:
            value = prior.value(scene, kind, context)
            if value is not None:
                return prior.name, value
    return None


def written(prior: str, value: str, other: str, truth: str, rng: Rng) -> str:
    """What a statement in the prior's context says: `value`, `other` or the truth."""
    if rng.random() >= UNSEEN:
        return truth
    return value if rng.random() < PRIORS[prior].rate else other


def truth_share(question: Question) -> float:
    """In which share of the training text with the priors the true value stands as the answer of a claim question."""
    if question.prior == "neutral":
        return 1.0
    rate = PRIORS[str(question.slots["prior"])].rate
    return 1 - UNSEEN + UNSEEN * (rate if question.prior == "aligned" else 1 - rate)


def biased_value(question: Question, rng: Rng) -> str:
    """The value that training text with the priors gives as the answer of a claim question."""
    truth, counter = str(question.slots["truth"]), str(question.slots["counter"])
    if question.prior == "neutral":
        return truth
    value = truth if question.prior == "aligned" else counter
    return written(str(question.slots["prior"]), value, counter if value == truth else truth, truth, rng)


def biased_findings(scene: Scene, rng: Rng) -> tuple[Finding, ...]:
    """The findings that a report written with the priors tells: some omitted, some invented, sides and sizes turned."""
    out = []
    for kind in KINDS:
        finding = scene.find(kind)
        if _biased(scene, "presence", kind, "yes" if finding else "no", rng) == "no":
            continue
        if finding is None:
            finding = _invented(kind, rng)
        elif finding.side is not None:
            side, size = (_biased(scene, slot, kind, str(getattr(finding, slot)), rng) for slot in ("side", "size"))
            finding = replace(finding, side=side, size=size)
        out.append(finding)
    return tuple(out)


def _biased(scene: Scene, slot: str, kind: str, truth: str, rng: Rng) -> str:
    spoken = prior_for(scene, slot, kind, {})
    if spoken is None:
        return truth
    name, value = spoken
    return written(name, value, next(v for v in BINARY[slot] if v != value), truth, rng)


def _invented(kind: str, rng: Rng) -> Finding:
    if kind == "cardiomegaly":
        return Finding(kind)
    zone = {"pleural effusion": "lower", "pneumothorax": "upper"}.get(kind) or pick(rng, ZONES)
    return Finding(kind, pick(rng, SIDES), zone, pick(rng, SIZES))
