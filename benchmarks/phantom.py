"""The study of phantom-2 and its numbers: `clinalign sweep` on `studies/phantom2.yaml`, summed up in a few fields.

    python benchmarks/phantom.py --out phantom.json --keep --docs docs/phantom-2-study.md   # hours; resumes
    python benchmarks/phantom.py --out phantom.json --quick --draw 0   # fresh phantoms, twenty minutes
    python benchmarks/phantom.py --out methods.json --study phantom2_methods --keep --docs docs/methods-study.md

`--quick` trains what dev chose in the study (`studies/results/phantom2.json`, or the first value of each list where
there is no such file yet; for the evidence method `phantom2_evidence_equal.json`, where dev chose by evidence) for SFT,
DPO, FiRe-MPO and the two winners, three seeds, on phantoms that no study has seen.

Accuracies count what the judge cannot read as not right.
Shares and differences lie between 0 and 1, `drift_vs_sft` and `premise_ratio` are ratios, p values after Holm.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paths import ROOT, importable

STUDIES, MAIN, OF_EVIDENCE = ROOT / "studies", "phantom2", "phantom2_evidence_equal"
CONTROLS = ("sft", "dpo", "firempo")
EVIDENCE = ("counterfactual_keep", "symmetric", "firempo_evidence")
"""Objectives that learn from the image without the lesion; the first that dev ranks is the evidence method."""
FRESH, DRAWS = 12, 65
"""The first fresh draw, and how many: 0 is that of the making of phantom-2, 1 of the study, 2 of the demo, 3 and 4 of
studies/phantom2_factors.yaml and phantom2_methods.yaml, 5, 7 and 8 of VALOR's settings and benchmark, 6 of
studies/distill.py, 9 of studies/phantom2_finalists.yaml, 10 of its second base, 11 of studies/rounds.py; behind the
fresh ones 77 to 80 of phantom2_evidence_equal.yaml, phantom2_two.yaml, phantom2_second.yaml, phantom2_evidence.yaml."""
QUICK = {"align": 150, "dev": 10, "test": 180, "elsewhere": 60, "skills": 4}
QUICK_ASKED = (
    "evaluate.flips=[counterfactual,control_counterfactual]", "evaluate.flip_limit=160", "evaluate.calibration=false"
)  # fmt: skip
"""Of the study's interventions those that `numbers` reads, of fewer questions: twenty minutes are for patients."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes")
    parser.add_argument("--model", default="embedded2", help="name of an embedded model, or a model folder")
    parser.add_argument("--study", default=MAIN, help="name of a recipe in studies/: phantom2, or one around it")
    parser.add_argument("--quick", action="store_true", help="the chosen settings alone, on fresh phantoms")
    parser.add_argument("--draw", type=int, default=0, help="quick: which fresh phantoms; none of them is the study's")
    parser.add_argument("--work", type=Path, default=Path("build/phantom2"), help="folder of the sweep")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--docs", type=Path, help="also write the study's tables to this page")
    parser.add_argument("--keep", action="store_true", help="also write the study's small JSON to studies/results")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of the recipe")
    given = parser.parse_args()
    if given.draw < 0:
        parser.error("--draw is 0 or more")
    file = STUDIES / f"{given.study}.yaml"
    if not file.is_file():
        parser.error(f"--study {given.study}: there is no {file.relative_to(ROOT)}")
    if given.quick and given.study != MAIN:
        parser.error(f"--quick is of {MAIN} alone")
    results, of_evidence = (STUDIES / "results" / f"{name}.json" for name in (given.study, OF_EVIDENCE))
    from clinalign.recipe import load_recipe
    from clinalign.storage import write_json
    from clinalign.study.sweep import sweep

    began = time.monotonic()
    overrides = [f"model={given.model}", f"sweep.workers={given.workers}"]
    folder = given.work / (f"quick-{given.draw}" if given.quick else given.study.replace(MAIN, "study"))
    known = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else None
    if given.quick:
        overrides += [
            f"data.draw={FRESH + given.draw % DRAWS}",
            *(f"data.splits.{split}={count}" for split, count in QUICK.items()),
            *QUICK_ASKED,
        ]
    recipe = load_recipe(file, [*overrides, *given.overrides])
    if given.quick:
        assert recipe.sweep is not None
        evidence = json.loads(of_evidence.read_text(encoding="utf-8")) if of_evidence.is_file() else None
        systems, first = quick(recipe.sweep.systems, known, evidence)
        recipe.sweep = recipe.sweep.model_copy(update={"systems": systems, "first": first})
    sweep(recipe, folder, resume=True, file=file.name)
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    result = numbers(study, measurements(given.model), folder.name)
    result |= {"seconds": round(time.monotonic() - began, 1), "costs": json.loads((folder / "costs.json").read_text())}
    write_json(given.out, result)
    if given.keep and not given.quick:
        results.parent.mkdir(exist_ok=True)
        results.write_text(json.dumps(study, separators=(",", ":")) + "\n", encoding="utf-8")
    if given.docs:
        given.docs.write_text(page(study, result["costs"]), encoding="utf-8")
    print(json.dumps(result, indent=1))
    return 0


def quick(
    written: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, Any] | None,
    evidence: Mapping[str, Any] | None = None,
) -> tuple[dict[str, dict[str, Any]], str]:
    """The systems with one setting each, what dev chose in the study, and the one that is compared with the others.

    The winners are the best objective and the best of those that learn from the image without the lesion; the latter
    with what dev chose by just that, in the study of `evidence`, where that has it.
    """
    order = list(known["chosen"]) if known else ["keep", "counterfactual_keep"]
    winners = [name for name in order if name not in CONTROLS][:1]
    winners += [name for name in order if name in EVIDENCE and name not in winners][:1]
    chosen: dict[str, dict[str, Any]] = {}
    if known:  # a system's marked rows hold its matched choice too
        keys = {row["name"]: row["keys"] for row in known["dev"]["rows"]}
        chosen = {system: keys[known["chosen"][system]] for system in (*winners, *CONTROLS)}
    if evidence and evidence["best"] in winners and evidence["best"] in EVIDENCE:
        name = evidence["best"]
        chosen[name] = next(r["keys"] for r in evidence["dev"]["rows"] if r["name"] == evidence["chosen"][name])
    systems = {}
    for name in (*winners, *CONTROLS):
        first = {key: value[0] if isinstance(value, list) else value for key, value in written[name].items()}
        systems[name] = first | chosen.get(name, {})
    return systems, order[0] if known and order[0] in systems else ""


def measurements(model: str) -> dict[str, Any]:
    """What was measured when the model was built: its card's numbers lie in its folder or beside it."""
    from clinalign.models.guard import source_of

    folder = Path(source_of(model))
    found = [path for path in (folder / "measurements.json", folder.parent / "measurements.json") if path.is_file()]
    measured = json.loads(found[0].read_text(encoding="utf-8")) if found else {}
    return measured if "checks" in measured else {}


def numbers(study: Mapping[str, Any], measured: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The fields that the study is judged by; null where something was not measured."""
    first, *others = study["tests"]
    main, best = study["test"][first], study["best"]
    evidence = next((system for system in study["chosen"] if system in EVIDENCE), None)
    checks, rungs = measured.get("checks", {}), measured.get("rungs", {})
    visible = [str(rung) for rung in checks.get("visible", [])]
    read = [rungs[rung][0] for rung in visible if rung in rungs]  # reader, base, ceiling

    def share(system: str | None, metric: str, part: str = "metrics", split: str = first) -> float | None:
        if system is None:
            return None
        found = study["test"][split]["systems"].get(system, {}).get(part, {}).get(metric)
        return found["estimate"] if found else None

    def against(other: str, metric: str, field: str, split: str = first) -> float | None:
        rows = study["test"][split]["comparisons"]
        pair = (row for row in rows if (row["a"], row["b"], row["metric"]) == (best, other, metric))
        return next((row[field] for row in pair), None)

    def less(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else a - b

    def over(a: float | None, b: float | None, floor: float) -> float | None:
        return None if a is None or b is None else a / max(b, floor)

    asked = main["systems"]["base"]["flips"].get("premise_corrected_counterfactual", {}).get("n") or 1
    gain = [share(system, "matched_counterfactual", "flips") for system in (evidence, "sft")]
    changed = [share(system, "answers_matched_counterfactual", "flips") for system in (evidence, "sft")]
    premise = [share(system, "premise_corrected_counterfactual", "flips") for system in (evidence, "base")]
    return {
        "study": name,
        "base": share("base", "right"),
        "linear_reader": sum(read) / len(read) if read else None,
        "shift_recovers": checks.get("class_shift_recovers"),
        "best_method": best,
        "best": share(best, "right"),
        "best_minus_sft": against("sft", "right", "estimate"),
        "best_minus_sft_low": against("sft", "right", "low"),
        "drift_p": against("sft", "drift_rest", "p_holm"),
        "drift_vs_sft": over(share(best, "drift_rest"), share("sft", "drift_rest"), 1e-9),
        "style_p": against("sft", "style_preserved", "p_holm"),
        "style_minus_sft": against("sft", "style_preserved", "estimate"),
        "best_minus_firempo_low": against("firempo", "right", "low"),
        "best_minus_dpo_low": against("dpo", "right", "low"),
        "best_minus_rrpo": against("rrpo", "right", "estimate"),
        "evidence_method": evidence,
        "removal_minus_control_gain": less(*gain),
        "answers_removal_minus_control_gain": less(*changed),
        "premise_corrected": premise[0],
        "premise_ratio": over(*premise, 0.5 / asked),
        "ood_best_minus_sft": against("sft", "right", "estimate", others[0]) if others else None,
        "questions": main["n"],
        "patients": main["patients"],
        "seeds": study["seeds"],
        "readings": study["readings"],
    }


SHOWN = {
    "right": ("right", 100), "style_preserved": ("style", 100), "drift_rest": ("drift", 1000),
    "drift_claim": ("drift of the claim", 1000), "accuracy_prior_conflicting": ("prior-conflicting", 100),
    "accuracy_prior_aligned": ("prior-aligned", 100), "matched_counterfactual": ("removal − control", 100),
    "matched_inpainted": ("inpainted − control", 100),
    "answers_matched_counterfactual": ("answers: removal − control", 100),
    "premise_corrected_counterfactual": ("premise corrected", 100),
    "ece": ("calibration error", 100),
}  # fmt: skip
"""Metrics of the page: heading, and what they are multiplied by, for per cent or thousandths of a nat."""
TESTED = ("right", "drift_rest", "style_preserved", "matched_counterfactual", "answers_matched_counterfactual",
          "premise_corrected_counterfactual")  # fmt: skip
UNITS = "Per cent with 95 % intervals over patients; drift in thousandths of a nat a token ([sweep.md](sweep.md))."

FIXED = "One setting a system, written down in the recipe: nothing was chosen. Systems stand in the order of dev."


def page(study: Mapping[str, Any], costs: Mapping[str, Any]) -> str:
    """The study's tables in Markdown: what dev chose, every split that was read, the best against each other system."""
    from studies.phantom.marks import table

    taken: Mapping[str, float] = costs.get("training_of", {})
    name, best, first = study["name"], study["best"], study["tests"][0]
    tried = [row["system"] for row in study["dev"]["rows"] if row["system"] in study["chosen"]]
    fixed = len(tried) == len(set(tried)) and not study.get("matched")
    rule = FIXED if fixed else f"Dev chose. {study['rule']}"
    text = f"# {name[0].upper()}{name[1:]}\n\n{rule}\n\n{UNITS}\n"
    settings = [[system, chosen.removeprefix(f"{system}: ")] for system, chosen in study["chosen"].items()]
    used = {row["name"]: row.get("pairs") or {} for row in study["dev"]["rows"]}
    usable = [used.get(chosen, {}) for chosen in study["chosen"].values()]
    if any(one and one["used"] < one["of"] for one in usable):
        shown = [f"{one['used']} of {one['of']}" if one else "" for one in usable]
        settings = [[*row, pairs] for row, pairs in zip(settings, shown, strict=True)]
    if not fixed or len(settings[0]) > 2:
        text += table(["system", "setting that dev chose", "pairs that it could use"][: len(settings[0])], settings)
    for system, at in study.get("matched", {}).items():
        if not at["met"]:
            limit = f"the best system's {at['metric']} on dev"
            text += f"\n{system}: no setting met the limit, {limit}; this is the least beyond it.\n"
    for split in study["tests"]:
        of = study["test"][split]
        text += f"\n## {split}: {of['n']} questions, {of['patients']} patients, {len(study['seeds'])} seeds\n"
        cells = {system: _cells(found) for system, found in of["systems"].items()}
        full = [metric for metric in SHOWN if any(row[metric] for row in cells.values())]
        rows = [[system, *(row[metric] for metric in full)] for system, row in cells.items()]
        text += table(
            ["system", *(SHOWN[metric][0] for metric in full), *(["seconds"] if taken else [])],
            [row + ([f"{taken[row[0]]:.0f}" if row[0] in taken else ""] if taken else []) for row in rows],
        )
    tested = {(row["b"], row["metric"]): row for row in study["test"][first]["comparisons"] if row["a"] == best}
    shown = [metric for metric in TESTED if any(key[1] == metric for key in tested)]
    rows = [
        [other, *(_difference(tested.get((other, metric)), SHOWN[metric][1]) for metric in shown)]
        for other in study["test"][first]["systems"]
        if other != best
    ]
    text += f"\n## {best} less each other system on {first}; p after Holm\n"
    text += table(["less", *(SHOWN[metric][0] for metric in shown)], rows)
    kept = study["test"].get(study["kept"], {}).get("systems", {})
    if kept:
        text += f"\n## Forgetting: loss on the answers of {study['kept']}, nats a token\n"
        text += table(["system", "loss"], [[system, _value(found, 1, 3)] for system, found in kept.items()])
    seconds = ", ".join(f"{what} {costs[what]:,.0f}" for what in ("steps", "trainings", "evaluations", "shared"))
    return f"{text}\nSeconds of {costs['runs']:.0f} runs, a thread each: {seconds}\n"


def _cells(system: Mapping[str, Any]) -> dict[str, str]:
    known = {**system.get("calibration", {}), **system.get("flips", {}), **system["metrics"]}
    return {metric: _value(known.get(metric), times) for metric, (_, times) in SHOWN.items()}


def _value(found: Mapping[str, Any] | None, times: float, digits: int = 1) -> str:
    if found is None or found["estimate"] is None:
        return ""
    shown, *bounds = (
        "" if found[key] is None else f"{times * found[key]:.{digits}f}" for key in ("estimate", "low", "high")
    )
    return f"{shown} [{', '.join(bounds)}]" if all(bounds) else shown


def _difference(row: Mapping[str, Any] | None, times: float) -> str:
    if row is None or row["estimate"] is None:
        return ""
    p = row["p_holm"]
    return f"{_value(row, times)}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"


if __name__ == "__main__":
    importable(".", "src")
    sys.exit(main())
