"""The table of metrics: everything that is said of a number, wherever it is shown, tested or summed up.

A new metric is one entry. `score` gives its value for one answer to a clean question; metrics without one are taken
from the outcome's own `metrics` under their name, or are summed up elsewhere (`group`). An entry of one's own is named
in a recipe by its dotted path (`evaluate.metrics`).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from clinalign.errors import UsageError
from clinalign.evaluation.text import style_preserved
from clinalign.language.judge import VERDICTS
from clinalign.records import Example, Outcome

VQA_TASKS = ("closed", "open")
RULES = "rules"
JUDGE_FAILED = "judge_failed"
"""How the reason of an outcome begins whose judge gave no verdict that can be used."""
RULES_SAID, SECOND_SAID = "judged_by_rules", "judged_by_model"
"""Slots of an outcome that both judged: true, false or null each."""
PROBABILITY = "p_yes"
ABLATIONS = ("blank", "noise", "shuffled", "no_image")
FLIPS = ("lesion_noise", "control", "counterfactual", "inpainted", "control_counterfactual", "control_inpainted")
REMOVED = ("counterfactual", "inpainted")
"""Conditions under which the finding that is asked about is gone."""
PAINTED = {"counterfactual": "inpainted", "control_counterfactual": "control_inpainted"}
"""What stands for a condition where the exact image without the finding is not known."""
LAYERED = ("ratio", "kl", "js", "pointing")
TOPS = (5, 10, 25, 50, 75)

Kind = Literal["share", "difference", "number"]
Score = Callable[[Outcome, Example, Outcome | None], float | None]
"""Value of an answer to an example, the baseline's answer beside it; None or nan: not scored."""
RANGES = {"share": (0.0, 1.0), "difference": (-1.0, 1.0), "number": (-math.inf, math.inf)}


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `kind` settles its interval and, unless `range` does, what it cannot leave; a difference is that of
    two shares. `unit`: "%" is shown times 100.

    `shown` names the places: result, beside, flips, report, calibration and layers (tables of the page), suite (each
    data set), compare (the command), card (the model card), runner (lmms-eval), tested (paired tests against the
    baseline), guarded (named on the page where it fell). `group`: where a system's summary has it.
    """

    name: str
    label: str
    help: str
    shown: tuple[str, ...] = ()
    kind: Kind = "share"
    unit: str = "%"
    better: Literal["higher", "lower", ""] = "higher"
    group: tuple[str, ...] = ("metrics",)
    score: Score | None = None
    range: tuple[float, float] | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """What no value of it can leave."""
        return self.range or RANGES[self.kind]

    def described(self) -> dict[str, Any]:
        """The entry as plain values, for the summary of a run whose recipe names it."""
        return {key: value for key, value in asdict(self).items() if key not in ("score", "range")}


def accuracy(outcome: Outcome, example: Example, base: Outcome | None) -> float | None:
    """1 where the answer is right, 0 where it is wrong, not scored where no judge can tell; questions alone."""
    return _right(outcome) if example.task in VQA_TASKS else None


def _right(outcome: Outcome) -> float:
    return math.nan if outcome.correct is None else float(outcome.correct)


def right(outcome: Outcome, example: Example, base: Outcome | None) -> float | None:
    """1 where the answer is right, 0 where it is wrong or no judge can tell; questions alone."""
    return float(outcome.correct is True) if example.task in VQA_TASKS else None


def _of_task(task: str) -> Score:
    return lambda outcome, example, base: _right(outcome) if example.task == task else None


def _of_prior(prior: str) -> Score:
    def score(outcome: Outcome, example: Example, base: Outcome | None) -> float | None:
        return accuracy(outcome, example, base) if example.prior == prior else None

    return score


def _verdict(outcome: Outcome) -> str | None:
    """Which of the verdicts that are neither right nor wrong an answer has; None where it has none of them."""
    unscored = outcome.correct is None and bool(outcome.text.strip())
    return VERDICTS.get(outcome.reason) if unscored else None


def _has_verdict(name: str) -> Score:
    return lambda outcome, example, base: float(_verdict(outcome) == name)


def _failed(outcome: Outcome) -> bool:
    return outcome.reason.startswith(JUDGE_FAILED)


def _unparsable(outcome: Outcome, example: Example, base: Outcome | None) -> float:
    read = outcome.correct is not None or not outcome.text.strip() or _failed(outcome)
    return float(not read and _verdict(outcome) is None)


def _yes(outcome: Outcome, example: Example, base: Outcome | None) -> float | None:
    if not yes_no(example) or outcome.correct is None:
        return None
    return float(outcome.correct == (truth(example) == "yes"))


def _style(outcome: Outcome, example: Example, base: Outcome | None) -> float | None:
    if base is None or example.task not in VQA_TASKS:
        return None
    spans = outcome.slots.get("span"), base.slots.get("span")
    return float(style_preserved(outcome.text, spans[0], base.text, spans[1], outcome.correct is not None))


_MAIN = ("result", "tested", "card", "guarded")
_REPORTED = ("report",)
METRICS: tuple[Metric, ...] = (
    Metric("accuracy", "all", "Right answers to all questions", (*_MAIN, "suite", "runner"), score=accuracy),
    Metric("right", "right of all", "The same, but what the judge cannot read counts as not right", ("tested",),
           score=right),
    Metric("accuracy_closed", "closed", "Right answers to closed (yes/no, choice) questions",
           (*_MAIN, "suite", "compare", "runner"), score=_of_task("closed")),
    Metric("accuracy_open", "open", "Right answers to open questions",
           (*_MAIN, "suite", "compare", "runner"), score=_of_task("open")),
    Metric("accuracy_prior_conflicting", "prior-conflicting",
           "Right answers where the truth contradicts the language prior: what a model tends to say without looking",
           _MAIN, score=_of_prior("conflicting")),
    Metric("accuracy_prior_aligned", "prior-aligned", "Right answers where the truth is what the language prior says",
           _MAIN, score=_of_prior("aligned")),
    Metric("accuracy_prior_neutral", "prior-neutral", "Right answers where there is no language prior",
           _MAIN, score=_of_prior("neutral")),
    Metric("accuracy_report", "reports", "Right reports", ("suite", "tested", "card", "guarded"),
           score=_of_task("report")),
    Metric("style_preserved", "style preserved",
           "Answers that parse, do not repeat, and keep the base's text outside the claim", _MAIN, score=_style),
    Metric("balanced_accuracy", "balanced", "Mean of the accuracy on yes and on no; 50 is chance",
           ("beside", "card", "compare", "runner")),
    Metric("yes_rate", "says yes", "Yes/no questions answered by yes",
           ("beside", "suite", "tested", "card", "compare", "runner"), better="", score=_yes),
    Metric("unanswered", "no answer", "Nothing was said", ("beside", "suite", "card", "compare", "runner"),
           better="lower", score=lambda outcome, example, base: float(not outcome.text.strip())),
    Metric("unparsable", "no verdict", "The judge could not read the answer; never scored",
           ("beside", "suite", "card", "compare", "runner"), better="lower", score=_unparsable),
    Metric("incomplete", "incomplete", "Part of the truth, or less than it; neither right nor wrong",
           ("beside", "suite", "card"), better="lower", score=_has_verdict("incomplete")),
    Metric("abstained", "abstained", "Declined, or named possibilities only; never scored",
           ("beside", "suite", "card"), better="", score=_has_verdict("abstained")),
    Metric("judge_failed", "judge failed", "The language model was asked to judge and gave no verdict",
           ("card",), better="lower",
           score=lambda outcome, example, base: None if outcome.judge == RULES else float(_failed(outcome))),
    Metric("truncated", "cut off", "Longer than the limit", ("beside", "card"), better="lower"),
    Metric("exact_match", "exact match", "The short ground truth word for word", ("card",)),
    Metric("words", "words", "Mean answer length in words", ("beside", "suite", "tested", "compare", "runner"),
           "number", "words", "", range=(0.0, math.inf)),
    Metric("coverage", "understood", "Clinical words of the answers that the rules know", ("beside", "suite")),
    Metric("token_f1", "word overlap", "F1 of the words with the short ground truth", ("beside", "runner")),
    Metric("token_recall", "word recall", "Words of the short ground truth that the answer has", ("runner",)),
    Metric("rouge_l", "ROUGE-L", "Longest common run of words with the short ground truth"),
    Metric("bleu", "BLEU", "Corpus BLEU-4 of the open answers, without smoothing"),
    Metric("drift_rest", "drift", "KL(base || system) a token of the base's own answers, outside the claim",
           ("beside", "tested"), "number", "nats", "lower", range=(0.0, math.inf)),
    Metric("drift_claim", "drift of the claim", "The same on the words that say the claim",
           ("beside", "tested"), "number", "nats", "", range=(0.0, math.inf)),
    Metric("drift", "drift in all", "The same over the whole answers", ("tested",), "number", "nats", "lower",
           range=(0.0, math.inf)),
    Metric("truth_nll", "loss on skills", "Negative log-likelihood a token of the reference answers: what is forgotten",
           ("beside", "tested"), "number", "nats", "lower", range=(0.0, math.inf)),
    Metric("flip_lesion_noise", "lesion noised", "Answers that flip when the lesion is covered with noise",
           ("flips", "tested", "card"), group=("flips",)),
    Metric("flip_control", "control noised", "Answers that flip when an equal patch elsewhere is noised",
           ("flips", "tested", "card"), better="lower", group=("flips",)),
    Metric("flip_counterfactual", "lesion absent", "Answers that flip on the exact image without the lesion",
           ("flips", "tested", "card"), group=("flips",)),
    Metric("flip_inpainted", "lesion inpainted", "Answers that flip when the lesion is painted over",
           ("flips", "tested", "card"), group=("flips",)),
    Metric("specificity", "noised − control", "Flips by noise in the lesion minus flips by noise elsewhere",
           ("flips", "tested", "guarded"), "difference", group=("flips",)),
    Metric("specificity_counterfactual", "absent − control", "Flips without the lesion minus flips by noise elsewhere",
           ("flips", "tested", "guarded"), "difference", group=("flips",)),
    Metric("specificity_inpainted", "inpainted − control", "Flips by inpainting minus flips by noise elsewhere",
           ("flips", "tested", "guarded"), "difference", group=("flips",)),
    Metric("flip_control_counterfactual", "same change elsewhere",
           "Answers that flip when what takes the lesion away is done to an equal patch elsewhere",
           ("flips", "tested", "card"), better="lower", group=("flips",)),
    Metric("flip_control_inpainted", "inpainted elsewhere",
           "Answers that flip when an equal patch elsewhere is painted over",
           ("flips", "tested", "card"), better="lower", group=("flips",)),
    Metric("matched_counterfactual", "absent − same elsewhere",
           "Flips without the lesion minus flips by the same change elsewhere",
           ("flips", "tested", "guarded"), "difference", group=("flips",)),
    Metric("matched_inpainted", "inpainted − same elsewhere",
           "Flips by inpainting the lesion minus flips by inpainting an equal patch elsewhere",
           ("flips", "tested", "guarded"), "difference", group=("flips",)),
    Metric("answers_matched_counterfactual", "answers: absent − same elsewhere",
           "Answers whose claim changes without the lesion minus those that the same change elsewhere changes",
           ("flips", "tested"), "difference", group=("flips",)),
    Metric("answers_matched_inpainted", "answers: inpainted − same elsewhere",
           "The same by inpainting the lesion and an equal patch elsewhere",
           ("flips", "tested"), "difference", group=("flips",)),
    Metric("premise_corrected_counterfactual", "premise corrected",
           "Of questions about a lesion's side, size or the like, asked of the image without it: answered that it is "
           "gone", ("flips", "tested"), group=("flips",)),
    Metric("premise_corrected_inpainted", "premise corrected over paint",
           "The same where the lesion is painted over", ("flips", "tested"), group=("flips",)),
    Metric("area_specificity", "area − control", "Area under the flips at the lesion minus that at the control",
           ("tested",), "difference", group=("causal",)),
    Metric("precision", "precision", "Of the findings stated, the share that the reference has", _REPORTED,
           group=("reports", "micro")),
    Metric("recall", "recall", "Of the reference's findings, the share that is stated", _REPORTED,
           group=("reports", "micro")),
    Metric("f1", "F1", "Both in one, over all findings", _REPORTED, group=("reports", "micro")),
    Metric("f1", "F1, mean of classes", "F1 by finding, averaged", _REPORTED, group=("reports", "macro")),
    Metric("side", "side right", "Of the findings found, the share on the right side", _REPORTED, group=("reports",)),
    Metric("zone", "zone right", "Of the findings found, the share in the right zone", _REPORTED, group=("reports",)),
    Metric("hallucinated", "invented a report", "Mean number of findings that the reference does not have", _REPORTED,
           "number", "", "lower", ("reports",), range=(0.0, math.inf)),
    Metric("missed", "missed a report", "Mean number of the reference's findings that are not stated", _REPORTED,
           "number", "", "lower", ("reports",), range=(0.0, math.inf)),
    Metric("bleu", "BLEU", "Overlap of words and phrases", _REPORTED, group=("reports",)),
    Metric("rouge_l", "ROUGE-L", "Longest common run of words", _REPORTED, group=("reports",)),
    Metric("ece", "calibration error", "Mean distance from the dashed line; 0 is best", ("calibration",),
           better="lower", group=("calibration",)),
    Metric("brier", "Brier score", "Mean squared error of the probability; 0 is best", ("calibration",),
           better="lower", group=("calibration",)),
    Metric("auc", "AUC", "How well the probability ranks yes above no; 50 is chance", ("calibration",),
           group=("calibration",)),
    Metric("ratio", "attention ratio", "Attention inside the outline over the mean everywhere; 1 is no preference",
           ("layers",), "number", "", group=("grounding", "layers"), range=(0.0, math.inf)),
    Metric("pointing", "pointing, %", "The strongest place lies inside the outline", ("layers",),
           group=("grounding", "layers")),
    Metric("kl", "KL", "Distance of the attention from the outline, in nats", ("layers",), "number", "nats", "lower",
           ("grounding", "layers"), range=(0.0, math.inf)),
    Metric("js", "JS", "Jensen-Shannon divergence of attention and outline, in nats", ("layers",), "number", "nats",
           "lower", ("grounding", "layers"), range=(0.0, math.log(2))),
)  # fmt: skip
_BY_NAME = {metric.name: metric for metric in reversed(METRICS)}
"""The first entry of each name."""


def shown(place: str, summary: Mapping[str, Any] | None = None) -> list[Metric]:
    """The metrics of one place in the order of the table; with a summary also those that its recipe named."""
    own = [Metric(**{**row, "shown": tuple(row["shown"]), "group": tuple(row["group"])})
           for row in (summary or {}).get("own_metrics", [])]  # fmt: skip
    return [metric for metric in (*METRICS, *own) if place in metric.shown]


def kind_of(name: str, own: Iterable[Metric] = ()) -> Kind:
    """The kind of a metric by its name; a number where the table does not have it."""
    found = {metric.name: metric for metric in own} | _BY_NAME
    return found[name].kind if name in found else "number"


def own_metrics(paths: Sequence[str]) -> list[Metric]:
    """The metrics that a recipe names as `module:name`: entries as they are, functions of (outcome, example) as numbers
    that are shown beside the accuracy. Raises `UsageError` for what cannot be imported or is neither."""
    found: list[Metric] = []
    for path in paths:
        module, colon, name = path.partition(":")
        try:
            value = getattr(importlib.import_module(module), name) if colon and module else None
        except (ImportError, AttributeError) as error:
            raise UsageError(f"evaluate.metrics: {path}: {error}; name it as module:function") from error
        if not isinstance(value, Metric) and not callable(value):
            raise UsageError(f"evaluate.metrics: {path}: is no function and no Metric; name it as module:function")
        metric = value if isinstance(value, Metric) else _from_function(name, value)
        if metric.name in _BY_NAME or metric.name in {one.name for one in found}:
            raise UsageError(f"evaluate.metrics: {path}: a metric '{metric.name}' is there already; rename it")
        found.append(metric)
    return found


def _from_function(name: str, function: Callable[[Outcome, Example], float | None]) -> Metric:
    text = " ".join((function.__doc__ or name).split())
    score: Score = lambda outcome, example, base: function(outcome, example)  # noqa: E731
    return Metric(name, name.replace("_", " "), text, ("beside",), "number", "", "", score=score)


def values(outcome: Outcome, example: Example, base: Outcome | None, own: Sequence[Metric] = ()) -> dict[str, float]:
    """Every metric that one answer has a value for. `base`: the baseline's answer to the same question, if any."""
    found = dict(outcome.metrics)
    for metric in (*METRICS, *own):
        value = metric.score(outcome, example, base) if metric.score is not None else None
        if value is not None:
            found[metric.name] = value
    return found


def truth(example: Example) -> str:
    """The short ground truth, normalised."""
    return example.answer.strip().strip(".").lower()


def yes_no(example: Example) -> bool:
    """Whether the question is answered by yes or no."""
    return example.task == "closed" and truth(example) in ("yes", "no")


def question_kind(example: Example) -> str:
    """The kind of the question: the data set's own name for it where there is one, otherwise the task."""
    return " ".join((example.kind or example.task).split())


def patient(example: Example) -> str:
    """The cluster of a question: its patient, or where none is known its first image, or itself."""
    return example.patient_id or (example.images[0] if example.images else example.id)


def balanced_columns(
    outcomes: Mapping[str, float], examples: Mapping[str, Example]
) -> tuple[np.ndarray, list[str], Callable[[np.ndarray], np.ndarray]]:
    """Columns, patients and combination for `intervals.ratio_interval`: mean of the recall on yes and on no.

    `outcomes` maps an example id to its score; unscored and non-yes/no questions are left out.
    """
    rows, patients = [], []
    for name, score in outcomes.items():
        example = examples[name]
        if yes_no(example) and not math.isnan(score):
            positive = truth(example) == "yes"
            rows.append([score * positive, float(positive), score * (not positive), float(not positive)])
            patients.append(patient(example))
    return np.array(rows, float).reshape(-1, 4), patients, _balanced


def _balanced(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return (sums[..., 0] / sums[..., 1] + sums[..., 2] / sums[..., 3]) / 2
