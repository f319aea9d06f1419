"""The docs page from the study's JSON alone: every number in it is read from there, every verdict computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clinalign.storage import write_text
from studies.phantom.marks import (
    Json,
    count,
    figure,
    number,
    percent,
    points,
    points_of,
    share,
    signed,
    spread,
    table,
    titled,
    tuned,
)
from studies.phantom.settings import COLLAPSE, MIN_STYLE, V_PRIME

FIGURE = "phantom-study.png"
FEW_WORDS = 5
CONTROLS = ("shift", "sft", "firempo", "dpo", "dpo_same", "rrpo", "mask_dpo")


def write(result: Json, path: Path) -> None:
    """Writes the page and, in `images/` beside it, its figure."""
    image = path.parent / "images" / FIGURE
    image.parent.mkdir(parents=True, exist_ok=True)
    figure(result, image)
    write_text(path, render(result))


def render(result: Json) -> str:
    """The page as Markdown."""
    parts = [_head(result), _main(result), _paired(result), _causal(result), _corpora(result), _dynamics(result)]
    if result["second_grid"]:
        parts += [_v_prime(result), _second(result)]
    parts += [_grids(result) if any(result["grids"].values()) else "", _cannot(result)]
    return "\n".join(part for part in parts if part)


def _head(result: Json) -> str:
    study, side = result["study"], [result["probe_side"], result["answer_side"]]
    trials = max(len(cells) for cells in result["grids"].values())
    read = f"{trials} settings a method on dev, chosen by the rule below, " if trials else "default settings, "
    seen = (
        f"A linear reader of its image features tells the side of a finding in {number(side[0])} % of cases, its "
        f"answers in {number(side[1])} %."
        if side[0] is not None
        else ""
    )
    return f"""# What the phantom shows and what it cannot

This page is written by `python -m studies.phantom --render phantom.json --page docs/phantom-study.md` from the
study's JSON; no number in it was typed. The study runs on [phantoms](phantom.md) with the embedded model, which sees
but speaks from habit.
{seen}
Phantoms are drawings: nothing here is a clinical result.

Study `{study["name"]}`: {study["patients"]["align"]} phantom patients to learn from, {study["questions"]["dev"]} dev
and {study["questions"]["test"]} test questions of others; {read}{count(len(study["seeds"]), "seed")} of model and data
order; every system {study["defaults"]["max_steps"]} steps of {study["defaults"]["batch"]} pairs. Intervals are 95 %,
clustered by phantom patient; ± is the standard deviation between seeds.

{_verdict(result)}
"""


def _verdict(result: Json) -> str:
    """The four bars of the study and whether they were met."""
    bars = [
        (
            "FiRe-MPO minus base at least 5 points, interval above zero",
            f"{signed(result['delta_overall'])} [{signed(result['delta_overall_low'])}, "
            f"{signed(result['delta_overall_high'])}]",
            result["delta_overall"] >= 5 and result["delta_overall_low"] > 0,
        ),
        (
            "questions against the prior gain at least 25 points",
            signed(result["prior_conflicting_gain"]),
            result["prior_conflicting_gain"] >= 25,
        ),
        (
            "prior-neutral questions lose at most 2 points",
            signed(-result["prior_neutral_loss"]),
            result["prior_neutral_loss"] <= 2,
        ),
        (
            f"at least {100 * MIN_STYLE:.0f} % of answers that preserve the style",
            f"{result['style_preserved']:.1f} %",
            result["style_preserved"] >= 100 * MIN_STYLE,
        ),
        (
            "the reference-style corpus collapses: reward accuracy at least .99, gradient norm down 20 times or more, "
            f"answers of at most {FEW_WORDS} words",
            f"{result['collapse_reward_accuracy']:.3f}; {result['collapse_gradient_norm_ratio']:.0f} times; "
            f"{result['collapse_words']:.1f} words an answer",
            result["collapse_reward_accuracy"] >= 0.99
            and result["collapse_gradient_norm_ratio"] >= 20
            and result["collapse_words"] <= FEW_WORDS,
        ),
    ]
    rows = [[what, measured, "yes" if met else "**no**"] for what, measured, met in bars]
    metrics = result["systems"]["firempo"]["metrics"]
    own, worded = 1 - metrics["style_preserved"]["estimate"], metrics["own_wording"]["estimate"]
    return f"""{table(["expected", "measured", "met"], rows)}
Of FiRe-MPO's answers {share(own)} % do not preserve it, while {share(worded)} % are worded as the base words its
answers: the embedded model has several wordings for one kind of question, nearly equally likely, and training tips some
of them."""


def _main(result: Json) -> str:
    columns = ("accuracy", "accuracy_closed", "accuracy_open", "accuracy_prior_conflicting", "accuracy_prior_aligned")
    columns += ("accuracy_prior_neutral",)
    rows = []
    for label, system in result["systems"].items():
        metrics = system["metrics"]
        cells = [percent(metrics.get(name), interval=name == "accuracy") for name in columns]
        cells[0] += spread(system)
        words, unread = metrics["words"]["estimate"], metrics["unparsable"]
        setting = tuned(result["chosen"].get(label), result["study"]["defaults"])
        rows.append(
            [titled(label), setting, *cells, f"{words:.1f}", percent(metrics["style_preserved"]),
             percent(metrics["own_wording"]), percent(unread), percent(metrics["right"])]
        )  # fmt: skip
    head = ["system", "lr, beta", "all", "closed", "open"]
    head += ["prior-conflicting", "prior-aligned", "prior-neutral", "words"]
    return f"""## Systems on test, %
{table([*head, "style preserved", "own wording", "unreadable", "right of all"], rows)}
*All* to *prior-neutral*: share right among the answers that the judge can read. *Unreadable* answers are left out of
them; *right of all* counts them as not right. *Style preserved*: the claim can be read, no three words repeat, and
outside the claim at most two words differ from the base's answer to the same question. *Own wording*: the claim can be
read and the words around it are those of some answer of the base; an answer that has it and not the style has switched
to another of the base's own wordings. The class-wise logit shift adds one number a class to the base's
scores, fitted on dev: what moving a threshold alone can do.

![Accuracy against and with the prior, and training curves](images/{FIGURE})
"""


def _paired(result: Json) -> str:
    rows = []
    for c in result["comparisons"]:
        if c["metric"] == "accuracy":
            p = "-" if c["p_holm"] is None else f"{c['p_holm']:.4f}"
            rows.append([f"{titled(c['a'])} − {titled(c['b'])}", points(c), p, points_of(c["minimum_detectable"])])
    return f"""## Paired differences on test, points of accuracy
{table(["difference", "points", "p (Holm)", "smallest detectable"], rows)}
{_against(result["comparisons"], "firempo", CONTROLS)}
"""


def _causal(result: Json) -> str:
    names = ("lesion_noise", "control", "inpainted", "counterfactual")
    rows = [
        [titled(label), *(percent(system["flips"].get(f"flip_{n}")) for n in names)]
        + [points(system["flips"].get("specificity")), points(system["flips"].get("specificity_counterfactual"))]
        for label, system in result["systems"].items()
        if system["flips"]
    ]
    head = ["system", "lesion noise", "control patch", "inpainting", "exact counterfactual"]
    return f"""## Does the answer lean on the lesion?
Share of answers whose teacher-forced margin over their counterfactual turns when the evidence is taken away, %:
{table([*head, "noise − control", "counterfactual − control"], rows)}
"""


def _corpora(result: Json) -> str:
    names = {"noise": "minimal edits of the model's own answers", "reference": "reference-style"}
    lines = {
        "pairs": "pairs",
        "already_correct_share": "already right, share",
        "chosen_words_mean": "words in chosen",
        "rejected_words_mean": "words in rejected",
        "length_diff_mean": "mean difference in words",
        "within_two_share": "within two words, share",
        "edit_distance_mean": "word edit distance",
        "length_only_accuracy": "told apart by length alone, share",
    }
    rows = [
        [title, *(number(result["corpora"][name].get(key), 0 if key == "pairs" else 2) for name in names)]
        for key, title in lines.items()
    ]
    return f"""## What the corpora say before any training
{table(["", *names.values()], rows)}
"""


def _dynamics(result: Json) -> str:
    rows = []
    for label, numbers in result["dynamics"].items():
        words = result["systems"][label]["metrics"]["words"]["estimate"]
        rows.append(
            [titled(label), f"{numbers['reward_accuracy']:.3f}", f"{numbers['gradient_norm_ratio']:.1f}",
             f"{numbers['margin']:.2f}", f"{words:.1f}"]
        )  # fmt: skip
    head = ["system", "reward accuracy", "gradient norm, first / last steps", "margin", "words an answer"]
    return f"""## Training dynamics
Reward accuracy and margin over the last ten steps, gradient norm of the first five over the last five, mean over seeds.
The collapse is read from the row "{titled(result["collapse_of"])}": beta {COLLAPSE["beta"]:g} as published, learning
rate {COLLAPSE["lr"]:g}, {COLLAPSE["max_steps"]} steps, where dev showed the end of that road.
{table(head, rows)}
"""


def _v_prime(result: Json) -> str:
    """FiRe-MPO by the way the evidence is taken away in v'; the comparisons are FiRe-MPO with noise minus the other."""
    measured = {"accuracy": "accuracy", "flip_counterfactual": "flips on the exact counterfactual"}
    systems = [(label, result["systems"][label]) for label in ("firempo", *V_PRIME) if label in result["systems"]]
    shown = ("lesion_noise", "inpainted", "counterfactual")
    rows = [
        [titled(label), percent(s["metrics"]["accuracy"], interval=True) + spread(s)]
        + [percent(s["metrics"]["style_preserved"])]
        + [percent(s["flips"].get(f"flip_{name}"), interval=True) for name in shown]
        for label, s in systems
    ]
    tests = [
        [f"{titled(c['a'])} − {titled(c['b'])}", what, points(c), "-" if c["p_holm"] is None else f"{c['p_holm']:.4f}"]
        for metric, what in measured.items()
        for c in result["comparisons"]
        if (c["metric"], c["a"]) == (metric, "firempo") and c["b"] in V_PRIME
    ]
    head = ["system", "right", "style preserved", "flips: lesion noise", "inpainting", "exact counterfactual"]
    return f"""## Noise, inpainting or the twin: what v' should be
FiRe-MPO at its chosen setting, every seed, test. Lesion noise disturbs the evidence, inpainting and the exact twin
remove it; %.
{table(head, rows)}
{table(["difference", "of", "points", "p (Holm)"], tests)}
"""


def _second(result: Json) -> str:
    second = result["second_grid"]
    names = ("right", "accuracy_prior_conflicting", "accuracy_prior_neutral", "style_preserved", "own_wording")
    flips = ("flip_lesion_noise", "flip_control", "flip_inpainted", "flip_counterfactual")
    rows = [
        [("**" + cell["cell"] + "**") if cell["cell"] == second["winner"] else cell["cell"]]
        + [share(cell["dev"].get(name)) for name in (*names, *flips)]
        for cell in second["cells"]
    ]
    tests = [
        [f"{titled(c['a'])} − {titled(c['b'])}", points(c), "-" if c["p_holm"] is None else f"{c['p_holm']:.4f}"]
        for c in second["test"]
        if c["metric"] == "accuracy"
    ]
    head = ["cell", "right of all", "prior-conflicting", "prior-neutral", "style preserved", "own wording"]
    head += ["lesion noise", "control", "inpainting", "exact counterfactual"]
    return f"""## Trying to beat the controls
A grid written down before it was run: FiRe-MPO with a negative log-likelihood anchor on the chosen answer or on its
spans, gamma, three ways to take the evidence away, two rounds. Dev only, one seed, flips in the last four columns; the
winner by the same rule in bold.
{table(head, rows)}
The winner on test, once:
{table(["difference", "points of accuracy", "p (Holm)"], tests)}
{_against(second["test"], "anchored", CONTROLS)}
"""


def _against(comparisons: Sequence[Json], a: str, others: Sequence[str]) -> str:
    """One line for a system against each control, from the paired interval."""
    said = []
    for c in comparisons:
        if (c["a"], c["metric"]) == (a, "accuracy") and c["b"] in others and c["low"] is not None:
            verdict = "beats" if c["low"] > 0 else "stays behind" if c["high"] < 0 else "cannot be told from"
            said.append(f"- {titled(a)} {verdict} {titled(c['b'])}: {points(c)} points.")
    return "\n".join(said)


def _grids(result: Json) -> str:
    rows = []
    for label, cells in result["grids"].items():
        for cell in cells:
            dev = cell["dev"]
            picked = cell["setting"] == result["chosen"][label]
            name = f"**{titled(label)}**" if picked else titled(label)
            measured = ("right", "accuracy_prior_conflicting", "accuracy_prior_neutral")
            measured += ("style_preserved", "own_wording")
            rows.append(
                [
                    name,
                    tuned(cell["setting"], result["study"]["defaults"]),
                    *(share(dev[m]) for m in measured),
                    number(dev["words"]),
                ]
            )
    head = ["system", "lr, beta", "right of all", "prior-conflicting", "prior-neutral"]
    head += ["style preserved", "own wording", "words"]
    return f"""## The whole grid on dev, %
One seed. The rule: {result["study"]["rule"]} Chosen settings in bold.
{table(head, rows)}
"""


def _cannot(result: Json) -> str:
    return """## What it cannot show
- The habit is synthetic: one prior, put into one model's training text. Real models have many, and nobody knows them.
- One base model of a few million parameters and one draw of it. Seeds vary what is trained on top, not the base.
- Ground truth, regions and twins are exact here. With real data the editor, the judge and the regions err too.
- Questions carry one claim each and answers are one sentence; nothing is said about reports.
- A ranking of methods on phantoms is no ranking on patients. What carries over is the question to ask: is SFT on the
  same chosen answers, or a shifted threshold, as good?
"""
