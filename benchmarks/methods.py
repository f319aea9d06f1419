"""What of the preference family is checked, and what a step of each method costs.

    python benchmarks/methods.py --out methods.json [--table docs/methods.md] [--rounds 9]

Everything is run here. `golden`: losses whose hand-worked value holds; `trl_equal`: those with TRL's value, both by
the tests that say so. `packable`: methods that the packed step scores; `packed_equal`: those whose packed loss and
gradient are those of one pass an answer, on a tiny model that is not its reference. `methods` are all losses,
FiRe-MPO's ablation presets and the second setting of RRPO aside; those without an entry in the table have no packed
step. `cost` is the CPU time of a step, forward and backward with the reference computed along, over DPO's in the same
round: the median of the rounds, in which the methods take turns, on one thread, on pairs that have all that a method
may need.
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
import test_packing  # noqa: E402
import tiny  # noqa: E402

from clinalign.models import load_vlm  # noqa: E402
from clinalign.models.features import Features  # noqa: E402
from clinalign.objectives import METHODS, Method  # noqa: E402
from clinalign.training.step import PackedSteps  # noqa: E402

PRESETS = {"no_visual", "no_fkl", "no_rkl", "no_kl", "v1", "v2", "d1", "d2", "d3", "rrpo_authors"}
ELSEWHERE = {
    "test_vdpo_at_gamma_1_is_dpo": "vdpo",
    "test_segment_dpo_with_one_beta_is_dpo": "segment_dpo",
    "test_rc_keeps_values_and_scales_the_two_gradients": "rc",
}
"""Tests with a hand-worked value that do not say so in their names."""
UNPACKED = {"kto", "vdpo", "svco", "lpoi", "povid", "segment_dpo", "rc"}
"""Losses without an entry: the packed step does not score what they need."""


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
    found = {ELSEWHERE[test] for test, _ in tests if test in ELSEWHERE and ending == "by_hand"}
    for test, name in tests:
        if match := re.fullmatch(rf"test_(?:methods_)?(?:(\w+)_)?{ending}", test):
            found.add(name or match[1] or "")
    return found & everything()


def everything() -> set[str]:
    return set(METHODS) - PRESETS | UNPACKED


def packed() -> tuple[set[str], set[str]]:
    """Methods that the packed step scores, and those of them with loss and gradient of the naive form."""
    vlm = test_packing.policy("llava")
    samples = test_packing.mixed(vlm)
    known = [naive.passes(vlm, sample, packing.read(vlm)) for sample in samples]
    scored, equal = set(), set()
    for name in sorted(everything() & set(METHODS)):
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
    """CPU time of a step of four pairs on the embedded model, over DPO's of the same round."""
    torch.set_num_threads(1)
    vlm = load_vlm("embedded")
    vlm.attach_lora(r=8, alpha=16, dropout=0.0)
    tiny.perturb(vlm, 0.1)
    rng = np.random.default_rng(0)
    samples = [packing.sample(vlm, i, rng, fork=6, tails=(10, 10)) for i in range(4)]
    features = Features(vlm, packing.read(vlm))
    names = ["dpo", *sorted(everything() & set(METHODS) - {"dpo"})]
    steps = {name: PackedSteps(vlm, samples, METHODS[name], test_packing.WEIGHTS, features) for name in names}
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        seconds = {}
        for name in names:
            began = time.process_time()
            steps[name].loss(range(len(samples)))[0].backward()
            seconds[name] = time.process_time() - began
            vlm.model.zero_grad()
        for name in names if turn else ():  # the first round warms up
            ratios[name].append(seconds[name] / seconds["dpo"])
    return {name: round(statistics.median(values), 2) for name, values in ratios.items()}


def row(name: str, golden: set[str], trl: set[str], equal: set[str], cost: dict[str, float]) -> str:
    method = METHODS.get(name)
    cells = described(method) if method else ["not in the table"] + [""] * 4
    marks = ["yes" if name in names else "" for names in (golden, trl, equal)]
    return f"| {name} | {' | '.join([*cells, *marks, f'{cost[name]:.2f}' if name in cost else ''])} |"


def described(method: Method) -> list[str]:
    """Answers under the image and under the corrupted one, tokens, reference, whether margins stay within an image."""
    within = all(len(view) != 1 for view in (method.clean, method.corrupt))
    return [
        ", ".join(method.clean),
        ", ".join(method.corrupt),
        method.preference_on if method.preference_on != "none" else f"{method.nll_on} (NLL)",
        "yes" if method.compares else "no",
        "" if method.preference_on == "none" else "yes" if within else "no",
    ]


HEAD = """# The preference family, as measured

`python benchmarks/methods.py --out methods.json --table docs/methods.md` writes this. Each file in `objectives/` has
its method's source, its formula and what is wrong in published code. A reference's partition function can cancel in a
margin only where both answers in it are under the same image. Packed: loss and gradient are those of one
pass an answer. Cost is the CPU time of a step over DPO's.

| method | image | corrupted image | tokens | reference | margins in one image | golden | as TRL | packed | cost |
|---|---|---|---|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
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
