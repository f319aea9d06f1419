"""What the study tries, written down before it is run: sizes, grids, seeds and the rules by which dev decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clinalign.measuring.options import EvaluationOptions
from clinalign.recipe import load_recipe

Setting = dict[str, Any]
"""Training options that differ from the recipe `phantom`'s, for example {"method": "dpo", "lr": 2e-4, "beta": 1.0}."""

LABELS = {
    "base": "base",
    "shift": "class-wise logit shift",
    "firempo": "FiRe-MPO",
    "sft": "SFT on chosen",
    "dpo": "DPO",
    "dpo_same": "DPO at FiRe-MPO's setting",
    "rrpo": "RRPO",
    "mask_dpo": "MASK-DPO",
    "dpo_reference": "DPO, reference-style corpus",
    "dpo_reference_default": "DPO, reference-style corpus, published beta",
    "anchored": "FiRe-MPO, best of the second grid",
    "firempo_inpaint": "FiRe-MPO, lesion inpainted in v'",
    "firempo_counterfactual": "FiRe-MPO, exact counterfactual as v'",
}
METHOD_OF = {"dpo_reference": "dpo"}
TRAINED = ("firempo", "sft", "dpo", "rrpo", "mask_dpo", "dpo_reference")
CORPUS_OF = {"dpo_reference": "reference"}
"""The corpus a system learns from, where it is not the minimal-edit pairs with noise as v'."""

LRS = (5e-5, 1e-4, 2e-4)
BETAS = (0.1, 1.0)
SFT_LRS = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4)
"""SFT has no beta; six learning rates give it as many trials as the others have."""

KINDS = ("noise", "inpaint", "counterfactual")
V_PRIME = {"firempo_inpaint": "inpaint", "firempo_counterfactual": "counterfactual"}
"""FiRe-MPO at its chosen setting with the evidence taken away in another way: read on test with every seed."""
GAMMAS = (0.1, 1.0)
NLL_ON = ("answer", "spans")
NLL = 1.0

COLLAPSE: Setting = {"method": "dpo", "lr": 2e-4, "beta": 0.1, "max_steps": 120}
"""Where the reference-style corpus leads: the published beta, and a learning rate and steps at which dev showed the end
of it. At a larger beta the gradient dies before the words change; the grid shows that."""

MIN_STYLE = 0.93
MAX_LOSS = 0.02
RULE = (
    "Among the settings whose dev answers preserve the style in at least 93 % and whose prior-neutral dev accuracy is "
    "at most 2 points below the base's, the one with the most right answers on dev; where no setting qualifies, the "
    "one with the most right answers of all. Ties go to the smaller learning rate, then to the larger beta. An answer "
    "that the judge cannot read is not right. The same rule for every method."
)


@dataclass(frozen=True)
class Study:
    """Sizes and seeds. `grid` False takes the default setting of every method and leaves the second grid out."""

    name: str
    patients: Mapping[str, int]
    per_case: int = 3
    seeds: Sequence[int] = (0, 1, 2)
    grid: bool = True
    train: Setting = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    def options(self, setting: Setting) -> Setting:
        """All training options of a setting: the recipe `phantom`'s, the study's, then the setting's own."""
        return load_recipe("phantom").align.model_dump() | dict(self.train) | setting

    def measure(self, split: str) -> EvaluationOptions:
        """Evaluation options: the recipe `phantom`'s, then the study's."""
        shipped = load_recipe("phantom").evaluate.model_dump()
        return EvaluationOptions(**shipped | dict(self.evaluation) | {"split": split})


FULL = Study("full", {"align": 600, "dev": 200, "test": 300}, evaluation={"flip_limit": 300})
QUICK = Study("quick", {"align": 500, "dev": 60, "test": 200}, seeds=(0,), grid=False, evaluation={"flip_limit": 150})


def default(label: str) -> Setting:
    """A system before anything is tuned: the recipe `phantom`, COLLAPSE for the reference-style corpus."""
    return COLLAPSE if label == "dpo_reference" else {"method": label}


def grid(label: str) -> list[Setting]:
    """The settings of one system that dev chooses from; as many for every system."""
    method = METHOD_OF.get(label, label)
    if method == "sft":
        return [{"method": method, "lr": lr} for lr in SFT_LRS]
    return [{"method": method, "lr": lr, "beta": beta} for lr in LRS for beta in BETAS]


@dataclass(frozen=True)
class Cell:
    """One cell of the second grid: a setting, the corpus kind that gives v', how many rounds."""

    name: str
    setting: Setting
    kind: str = "noise"
    rounds: int = 1


def first_cells(firempo: Setting) -> list[Cell]:
    """The second grid, first part, at FiRe-MPO's chosen lr and beta: anchor x gamma x v'."""
    anchors: dict[str, Setting] = {"no anchor": {}} | {f"NLL on {on}": {"nll": NLL, "nll_on": on} for on in NLL_ON}
    return [
        Cell(f"{name}, gamma {gamma:g}, {kind}", firempo | anchor | {"gamma": gamma}, kind)
        for name, anchor in anchors.items()
        for gamma in GAMMAS
        for kind in KINDS
    ]


def second_cells(best: Cell, sft: Setting, steps: int) -> list[Cell]:
    """The second grid, second part, around the best cell of the first: SFT's chosen learning rate, a weaker and a
    stronger anchor (where it has one), two rounds, and their control, one round of twice the steps."""
    made = [Cell(f"{best.name}, lr {sft['lr']:g}", best.setting | {"lr": sft["lr"]}, best.kind)]
    if best.setting.get("nll"):
        made += [Cell(f"{best.name}, weight {w:g}", best.setting | {"nll": w}, best.kind) for w in (0.3, 3.0)]
    made.append(Cell(f"{best.name}, two rounds", best.setting, best.kind, rounds=2))
    made.append(Cell(f"{best.name}, twice the steps", best.setting | {"max_steps": 2 * steps}, best.kind))
    return made


def choose(results: Sequence[Mapping[str, float]], base: Mapping[str, float], settings: Sequence[Setting]) -> int:
    """The index that RULE picks. A result has shares `right`, `style_preserved`, `accuracy_prior_neutral` on dev."""

    def qualifies(result: Mapping[str, float]) -> bool:
        lost = base["accuracy_prior_neutral"] - result["accuracy_prior_neutral"]
        return result["style_preserved"] >= MIN_STYLE and lost <= MAX_LOSS + 1e-9

    allowed = [i for i, result in enumerate(results) if qualifies(result)] or list(range(len(results)))
    return min(
        allowed, key=lambda i: (-results[i]["right"], settings[i].get("lr", 0.0), -settings[i].get("beta", 0.0), i)
    )
