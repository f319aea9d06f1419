"""What of the preference family is checked, and what a step of each method costs.

    python benchmarks/methods.py --out methods.json [--table docs/methods.md] [--rounds 9]

Everything is run here. `golden`: losses whose hand-worked value holds; `trl_equal`: those with TRL's value, both by
the tests that say so. `packable`: methods that the packed step scores; `packed_equal`: those whose packed loss and
gradient are those of one pass an answer, on a tiny model that is not its reference. `methods` are all losses,
FiRe-MPO's ablation presets and the second setting of RRPO aside. `cost` is the CPU time of a step, forward and backward
with the reference computed along, over that of a step of DPO right before or after it: the median of the rounds, in
which the methods take turns, on one thread, on pairs that have all that a method may need.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("", "objectives", "training")]

import naive  # noqa: E402
import packing  # noqa: E402
import test_family as family  # noqa: E402
import test_packing  # noqa: E402
import tiny  # noqa: E402

from clinalign.models import load_vlm  # noqa: E402
from clinalign.models.features import Features  # noqa: E402
from clinalign.objectives import LADDER, METHODS, PUBLISHED, SequenceLogps  # noqa: E402
from clinalign.training.step import PackedSteps  # noqa: E402

PRESETS = {"no_visual", "no_fkl", "no_rkl", "no_kl", "v1", "v2", "d1", "d2", "d3", "rrpo_authors"}


class Passed:
    """A plugin that keeps what passed: the test's name without its parameters, and its parameter `name`."""

    def __init__(self) -> None:
        self.names: set[tuple[str, str]] = set()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Any:
        report = (yield).get_result()
        if report.when == "call" and report.passed:
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            self.names.add((item.originalname, str(parameters.get("name", ""))))


def passed(*files: str) -> set[tuple[str, str]]:
    """What passes of some files of tests."""
    plugin = Passed()
    pytest.main(["-q", "-p", "no:cacheprovider", *(str(ROOT / "tests" / name) for name in files)], plugins=[plugin])
    return plugin.names


def checked(tests: set[tuple[str, str]], ending: str) -> set[str]:
    """Losses that passing tests whose names end so are about."""
    found: set[str] = set()
    for test, name in tests:
        if match := re.fullmatch(rf"test_(?:methods_)?(?:(\w+)_)?{ending}", test):
            found.add(name or match[1] or "")
    return found & everything()


def everything() -> set[str]:
    """All losses by the names of their methods."""
    return set(METHODS) - PRESETS


def packed() -> tuple[set[str], set[str]]:
    """Methods that the packed step scores, and those of them with loss and gradient of the naive form."""
    vlm = test_packing.policy("llava")
    samples = test_packing.mixed(vlm)
    known = [naive.passes(vlm, sample, packing.read(vlm)) for sample in samples]
    scored, equal = set(), set()
    for name in sorted(everything()):
        usable = packing.usable(samples, METHODS[name])
        test_packing.steps(vlm, usable, name).loss(range(len(usable)))
        scored.add(name)
        try:
            test_packing.check(vlm, usable, [known[samples.index(s)] for s in usable], name, test_packing.WEIGHTS)
        except AssertionError as error:
            print(f"{name}: {error}")
        else:
            equal.add(name)
    return scored, equal


def costs(rounds: int) -> dict[str, float]:
    """CPU time of a step of four pairs on the embedded model, over DPO's beside it."""
    torch.set_num_threads(1)
    vlm = load_vlm("embedded")
    vlm.attach_lora(r=8, alpha=16, dropout=0.0)
    tiny.perturb(vlm, 0.1)
    rng = np.random.default_rng(0)
    samples = [packing.sample(vlm, i, rng, fork=6, tails=(10, 10)) for i in range(4)]
    features = Features(vlm, packing.read(vlm))
    names = sorted(everything() - {"dpo"})
    steps = {name: PackedSteps(vlm, samples, METHODS[name], test_packing.WEIGHTS, features) for name in ("dpo", *names)}
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name in names:
            order = ("dpo", name) if turn % 2 else (name, "dpo")
            seconds = {one: step_seconds(steps[one], len(samples)) for one in order}
            if turn:  # the first round warms up
                ratios[name].append(seconds[name] / seconds["dpo"])
    return {"dpo": 1.0} | {name: round(statistics.median(values), 2) for name, values in ratios.items()}


def step_seconds(steps: PackedSteps, pairs: int) -> float:
    """CPU time of a step, with what its loss takes as constants."""
    began = time.process_time()
    if steps.constants is not None:
        steps.constants.before(range(pairs), pairs, lambda value: value)
        steps.constants.start(steps.vlm.trainable())
    steps.loss(range(pairs))[0].backward()
    if steps.constants is not None:
        steps.constants.finish(lambda value: value)
    seconds = time.process_time() - began
    steps.vlm.model.zero_grad()
    return seconds


def row(name: str, golden: set[str], trl: set[str], equal: set[str], cost: dict[str, float]) -> str:
    """A method's line of the table."""
    marks = ["yes" if name in names else "" for names in (golden, trl, equal)]
    cells = [name, *described(name), *marks, f"{cost[name]:.2f}" if name in cost else "", PUBLISHED.get(name, "")]
    shown = [cell.replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(shown)} |"


def described(name: str) -> list[str]:
    """A method's terms, images, tokens, reference, passes, and whether partition functions cancel."""
    method = METHODS[name]
    steps = sum(view in LADDER for view in method.views)
    others = [f"{SHOWN[view]}: {', '.join(sides)}" for view, sides in method.views.items() if view not in LADDER]
    others += [f"steps between: {', '.join(method.views[LADDER[0]])}"] if steps else []
    others += ["likeliest tokens of the corrupted one: under the image"] if method.likeliest else []
    others += ["an answer to another prompt"] if method.baseline else []
    count = sum(map(len, (method.clean, method.corrupt, *method.views.values()))) - steps + method.baseline
    passes = f"{count}{' + steps' if steps else ''}"
    return [
        ", ".join(family.run(name, nll=float(name == "rpo")).parts),
        ", ".join(method.clean),
        ", ".join(method.corrupt),
        "; ".join(others),
        method.preference_on if method.preference_on != "none" else f"{method.nll_on} (NLL)",
        "yes" if method.compares else "no",
        f"{passes}, twice" if method.compares else passes,
        cancels(name),
    ]


SHOWN = {"free": "no image", "first": "both images, the first asked about", "second": "both images, the second"}


def cancels(name: str) -> str:
    """Whether a constant of each image (a log-partition function) in the reference's sums of all answers under it
    leaves the loss as it is, tried on the pair of the golden values; otherwise the terms that it moves."""
    method = METHODS[name]
    if method.reference_free or method.preference_on == "none":
        return ""
    moved: set[str] = set()
    plain = family.run(name, **family.WEIGHTS).parts
    for view in ("clean", "corrupt", *family.shown(name).views):
        for shift in (-3.0, 3.0):
            given = family.shown(name)
            for sums in reference_sums(given, view):
                sums.data += shift
            parts = family.run(name, given, **family.WEIGHTS).parts
            moved |= {term for term, value in parts.items() if abs(value.item() - plain[term].item()) > 1e-5}
    return f"no: {', '.join(sorted(moved))}" if moved else "yes"


def reference_sums(given: SequenceLogps, view: str) -> list[torch.Tensor]:
    """The reference's sums of all answers under a view."""
    if view in given.views:
        return list(given.views[view].ref_logps.values())
    prefix = "corrupt_ref_" if view == "corrupt" else "ref_"
    return [value for field, value in vars(given).items() if field.startswith(prefix)]


HEAD = """# The preference family, as measured

`python benchmarks/methods.py --out methods.json --table docs/methods.md` writes this. Each file in `objectives/` has
its method's source and its formula. What each does on phantom-2: [methods-study.md](methods-study.md).

- Terms: parts of the loss, at the weights of [training](training.md). Image, corrupted image, otherwise: the answers
  that are scored, and under what. Passes: answers scored a pair by the policy, twice where by the reference too, before
  packing shares the prompt and what answers have in common.
- Z cancels: whether a constant of each image, such as the reference's log-partition function, leaves the loss as it is;
  otherwise the terms that it moves. Means a token never cancel it, nor does an anchor on one answer.
- Golden: a hand-worked value. As TRL: TRL's value on the same log-probabilities. Packed: loss and gradient are those of
  one pass an answer, with a policy that is not the reference. Cost: CPU time of a step over DPO's.

| method | terms | image | corrupted image | otherwise | tokens | reference | passes | Z cancels | golden | as TRL \
| packed | cost | published defects |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    golden = checked(passed("objectives/test_family.py", "objectives/test_objectives.py"), "by_hand")
    tests = passed("training/test_trl.py")
    trl = checked(tests, "equals_trl") - {"firempo"}  # FiRe-MPO without its own terms is DPO
    scored, equal = packed()
    cost = costs(given.rounds)
    counts = {
        "methods": len(everything()), "golden": len(golden), "packable": len(scored), "packed_equal": len(equal),
        "trl_equal": len(trl), "cost": cost,
    }  # fmt: skip
    given.out.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    if given.table:
        line = partial(row, golden=golden, trl=trl, equal=equal, cost=cost)
        given.table.write_text(HEAD + "\n".join(map(line, sorted(everything()))) + "\n", encoding="utf-8")
    print(json.dumps(counts), "without a golden value:", sorted(everything() - golden))


if __name__ == "__main__":
    main()
