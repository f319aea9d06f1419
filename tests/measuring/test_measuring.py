"""Whole evaluations of stand-in models on phantoms: what a metric must show for a model built to have a fault."""

import json
from dataclasses import replace

import numpy as np
import pytest
from standins import Stand

from clinalign.errors import UsageError
from clinalign.evaluation import card_note, card_rows, summarise
from clinalign.evaluation.metrics import patient, shown
from clinalign.measuring import evaluate
from clinalign.measuring import evidence as C
from clinalign.measuring.ablations import find_donors
from clinalign.measuring.asking import Entry
from clinalign.measuring.measure import limited
from clinalign.measuring.options import EvaluationOptions
from clinalign.records import Example, Outcome
from clinalign.storage import Journal, Quarantine

PLAIN = EvaluationOptions(calibration=False, flips=[], resamples=200, permutations=200, batch_size=16)


def run(world, speak, options=PLAIN, system="base", **more):
    return evaluate(Stand(speak), world.examples, world.folder, options, system=system, **more)


def summed(results, examples, options=None, **more):
    """The summary of one or more results of `evaluate`."""
    results = results if isinstance(results, list) else [results]
    outcomes, measured = ([row for one in results for row in one[n]] for n in (0, 1))
    return summarise(outcomes, examples, options, measurements=measured, **more)


def metrics(world, speak, options=PLAIN):
    return summed(run(world, speak, options), world.examples, options)["systems"]["base"]


def test_a_model_that_knows_is_right(world):
    got = metrics(world, world.truth)
    accuracy = got["metrics"]["accuracy"]
    assert accuracy["estimate"] == 1.0 and accuracy["method"] == "Korn-Graubard" and accuracy["low"] < 1
    assert got["metrics"]["balanced_accuracy"]["estimate"] == 1.0
    assert got["metrics"]["unparsable"]["estimate"] == 0.0 and got["counts"]["not_judged"] == 0
    assert got["metrics"]["style_preserved"]["estimate"] == 1.0
    assert {"accuracy_prior_conflicting", "accuracy_prior_aligned", "accuracy_prior_neutral"} <= set(got["metrics"])
    assert set(got["kinds"]) == {e.kind for e in world.examples}
    parts = [got["metrics"][f"accuracy_{t}"]["n"] for t in ("closed", "open")]
    assert sum(parts) == got["metrics"]["accuracy"]["n"] == len(world.examples)


def test_an_always_yes_model_shows_its_yes_rate_and_chance_balanced_accuracy(world):
    got = metrics(world, lambda question, images: "Yes.")
    assert got["metrics"]["yes_rate"]["estimate"] == 1.0
    assert got["metrics"]["balanced_accuracy"]["estimate"] == pytest.approx(0.5)
    yes = [e.answer == "yes" for e in world.examples if e.task == "closed"]
    assert got["metrics"]["accuracy_closed"]["estimate"] == pytest.approx(np.mean(yes), abs=1e-6)
    assert got["metrics"]["unparsable"]["estimate"] > 0, "open questions cannot be answered by yes"


def test_answers_no_judge_can_read_are_counted_and_never_scored(world):
    silent = metrics(world, lambda question, images: "")
    assert silent["metrics"]["unanswered"]["estimate"] == 1.0 and silent["metrics"]["unparsable"]["estimate"] == 0.0
    assert silent["metrics"]["accuracy"] == {
        "estimate": None, "low": None, "high": None, "n": 0, "patients": 0, "method": "none",
    }  # fmt: skip
    assert silent["counts"]["not_judged"] == len(world.examples)
    first = world.examples[0].question

    def half(question, images):
        return "I am unable to tell." if question == first else world.truth(question, images)

    got = metrics(world, half)
    lost = sum(e.question == first for e in world.examples)
    assert got["metrics"]["accuracy"]["estimate"] == 1.0
    assert got["metrics"]["accuracy"]["n"] == len(world.examples) - lost
    unread = {name: got["metrics"][name]["estimate"] for name in ("unparsable", "abstained", "incomplete")}
    assert got["counts"]["not_judged"] == lost
    assert sum(unread.values()) == pytest.approx(lost / len(world.examples), abs=1e-6)


def test_terse_answers_do_not_preserve_the_style(world):
    base = run(world, world.truth)
    short = {e.question: e.answer for e in world.examples}
    terse = run(world, lambda question, images: short[question].capitalize() + ".", system="terse")
    got = summed([base, terse], world.examples, PLAIN)
    assert got["systems"]["terse"]["metrics"]["style_preserved"]["estimate"] < 0.05
    words = next(c for c in got["comparisons"] if c["metric"] == "words")
    assert words["estimate"] < -5 and words["high"] < 0 and words["p"] < 0.05


ABLATIONS = PLAIN.model_copy(update={"ablations": ["blank", "shuffled", "no_image"]})


def test_a_text_only_model_is_named_as_such(world):
    """At least 5 % of answers would change under another patient's image if the image were used at all."""
    assert len(world.examples) >= 150

    def prior(question, images):
        return "Yes, it is on the left." if len(question) % 2 else "No, it is small."

    got = metrics(world, prior, ABLATIONS)["ablations"]
    for condition in ("blank", "shuffled", "no_image"):
        assert got[condition]["changed"]["estimate"] == 0.0
    patients = len({patient(e) for e in world.examples})
    assert got["shuffled"]["p"] == pytest.approx(0.95**patients, abs=1e-6) and got["shuffled"]["p"] < 0.01
    assert got["shuffled"]["ignores_image"]


def test_a_model_that_looks_is_not(world):
    got = metrics(world, world.truth, ABLATIONS)["ablations"]
    assert got["shuffled"]["changed"]["estimate"] > 0.5 and got["shuffled"]["p"] > 0.99
    assert not got["shuffled"]["ignores_image"]


def test_a_model_that_takes_no_question_without_an_image_is_not_asked_one(world, monkeypatch, capsys):
    monkeypatch.setattr(Stand, "images_a_question", (1, 1))
    assert set(metrics(world, world.truth, ABLATIONS)["ablations"]) == {"blank", "shuffled"}
    assert "takes no question without an image; no_image is left out" in capsys.readouterr().err


def test_the_flag_needs_enough_patients_and_spares_a_reader(world):
    """92 patients without a change are the fewest that rule out 5 %: 0.95 ** 92 < 0.01 > 0.95 ** 90."""
    many = [replace(world.examples[0], id=f"e{n}", patient_id=f"p{n}") for n in range(200)]

    def outcomes(share):
        for number, example in enumerate(many):
            for condition in ("clean", "shuffled"):
                text = "Yes." if condition == "clean" or number >= share * 200 else "No."
                yield Outcome(example.id, "closed", "s", "base", "greedy", 0, condition, text, True, "rules")

    flags = {share: _flag(outcomes(share), many) for share in (0.0, 0.3)}
    assert flags == {0.0: True, 0.3: False}
    assert not _flag(list(outcomes(0.0))[:60], many), "thirty patients cannot rule out 5 %"


def _flag(outcomes, examples):
    return summarise(list(outcomes), examples, PLAIN)["systems"]["base"]["ablations"]["shuffled"]["ignores_image"]


def test_another_patients_image_is_another_patients(world):
    given = find_donors(world.examples)
    assert set(given) == {e.id for e in world.examples}
    assert all(patient(given[e.id]) != patient(e) for e in world.examples)
    assert given == find_donors(world.examples[::-1])
    with pytest.raises(UsageError, match="two patients"):
        find_donors(world.examples[:1])


def _reader(world, looks_at):
    """A margin that is positive while the pixels it looks at are those of the clean image."""
    from clinalign.imaging.images import read_image, read_mask

    clean = {}
    for example in world.examples:
        if example.regions:
            image = read_image(world.folder / example.images[0])
            mask = read_mask(world.folder / example.regions[0].mask)
            clean[example.question, image[:2].tobytes()] = (image, mask)  # the upper edge is outside the body

    def score(pair):
        image = pair.images[0]
        known, mask = clean[pair.prompt, image[:2].tobytes()]
        inside = mask if looks_at == "lesion" else ~mask
        return 1.0 if looks_at == "nothing" or (known[inside] == image[inside]).all() else -1.0

    return lambda vlm, pairs, batch_size: [score(pair) for pair in pairs]


@pytest.mark.parametrize("looks_at", ["lesion", "nothing", "elsewhere"])
def test_flips_tell_where_a_model_looks(world, monkeypatch, looks_at):
    monkeypatch.setattr(C, "margins", _reader(world, looks_at))
    options = EvaluationOptions(calibration=False, resamples=200, permutations=200, flip_limit=60)
    results = run(world, world.truth, options)
    got = summed(results, world.examples, options)["systems"]["base"]
    assert got["flips"]["flip_lesion_noise"]["n"] > 40
    flips = {name: interval["estimate"] for name, interval in got["flips"].items()}
    expected = {
        "lesion": {"flip_lesion_noise": 1, "flip_control": 0, "flip_counterfactual": 1, "specificity": 1},
        "nothing": {"flip_lesion_noise": 0, "flip_control": 0, "flip_counterfactual": 0, "specificity": 0},
        "elsewhere": {"flip_lesion_noise": 0, "flip_control": 1, "specificity": -1},
    }[looks_at]
    assert {name: flips[name] for name in expected} == pytest.approx(expected, abs=0.02)
    conditions = {m.condition for m in results.measurements if m.value is not None}
    assert conditions == {"clean", "lesion_noise", "control", "counterfactual"}, "every phantom has its exact image"
    assert {o.condition for o in results.outcomes} == {"clean"}, "a margin is no answer"


def test_a_flip_needs_a_margin_to_lose(world, monkeypatch):
    monkeypatch.setattr(C, "margins", lambda vlm, pairs, batch_size: [-1.0] * len(pairs))
    results = run(world, world.truth, EvaluationOptions(calibration=False, flip_limit=20))
    assert {m.value for m in results.measurements if m.value is not None} == {-1.0}
    assert summed(results, world.examples)["systems"]["base"]["flips"] == {}


def test_what_could_not_be_measured_is_counted_with_its_reason(world, monkeypatch):
    monkeypatch.setattr(C, "margins", _reader(world, "nothing"))
    results = run(world, lambda question, images: "I cannot tell.", EvaluationOptions(calibration=False))
    got = summed(results, world.examples)["systems"]["base"]
    located = sum(C.can_flip(e) for e in world.examples)
    assert got["flips"] == {} and set(got["counts"]["not_measured"].values()) == {located}
    assert "lesion_noise: cannot_tell" in got["counts"]["not_measured"]


def test_a_killed_evaluation_goes_on_and_gives_the_same(world, monkeypatch, tmp_path):
    monkeypatch.setattr(C, "margins", _reader(world, "lesion"))
    options = EvaluationOptions(calibration=False, ablations=["shuffled"], flip_limit=60)
    whole = run(world, world.truth, options)
    for calls in (2, 8, None):
        path = tmp_path / f"journal{calls}"
        with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
            if calls is None:  # killed in the second batch of margins
                patch.setattr(C, "margins", _dies(_reader(world, "lesion")))
            stand = Stand(world.truth, calls=calls or 10**6)
            journal = Journal(path, Entry)
            evaluate(stand, world.examples, world.folder, options, system="base", journal=journal)
        path.write_bytes(path.read_bytes()[:-9])
        again = run(world, world.truth, options, journal=Journal(path, Entry))
        assert again == whole


def _dies(margins, after=1):
    left = [after]

    def limited_margins(*args, **options):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return margins(*args, **options)

    return limited_margins


def test_systems_share_one_journal(world, tmp_path):
    journal = Journal(tmp_path / "journal", Entry)
    first = run(world, world.truth, journal=journal)
    second = run(world, lambda question, images: "Yes.", system="yes", journal=journal)
    assert {o.system for o in first.outcomes} == {"base"} and {o.system for o in second.outcomes} == {"yes"}
    assert len(journal.rows) == 2 * len(world.examples)


def test_order_of_examples_changes_nothing(world):
    forward = run(world, world.truth)
    backward = evaluate(Stand(world.truth), world.examples[::-1], world.folder, PLAIN, system="base")
    assert forward.outcomes == backward.outcomes[::-1]
    texts = [json.dumps(summed(o, world.examples, PLAIN), allow_nan=False) for o in (forward, backward)]
    assert texts[0] == texts[1]


def test_an_unreadable_image_is_quarantined_once_for_all_systems(world, tmp_path):
    quarantine = Quarantine(tmp_path / "q.jsonl")
    examples = [replace(world.examples[0], images=["none.png"]), *world.examples[1:10]]
    for system in ("base", "other"):
        got = evaluate(Stand(world.truth), examples, world.folder, PLAIN, system=system, quarantine=quarantine)
        assert len(got.outcomes) == 9
    assert [(r["stage"], r["id"], r["reason"]) for r in quarantine.rows] == [
        ("evaluate", examples[0].id, "missing_image")
    ]


def test_limits_keep_whole_patients(world):
    chosen = limited(world.examples, 30)
    assert 20 <= len(chosen) <= 30
    kept = {patient(e) for e in chosen}
    assert chosen == [e for e in world.examples if patient(e) in kept]
    assert limited(world.examples, 0) == world.examples


def test_where_no_patient_fits_a_limit_some_questions_of_one_are_kept():
    """A volume of 20 questions and a limit of 10: none at all would be measured. A patient that fits comes first."""
    examples = [Example(f"{p}{n}", [], "Is there a nodule?", "yes", patient_id=p) for p in "ab" for n in range(20)]
    chosen = limited(examples, 10)
    assert len(chosen) == 10 and len({patient(e) for e in chosen}) == 1
    assert chosen == [e for e in examples if e in chosen], "in their own order"
    assert {e.id for e in limited(examples[::-1], 10)} == {e.id for e in chosen}, "whatever the order"
    small = [Example("c", [], "Is there a nodule?", "yes", patient_id="c")]
    assert limited(examples + small, 10) == small and limited([], 10) == []


def test_comparisons_are_paired_and_corrected(world):
    """One in four answers is broken in `worse`, all right in `base` and `good`."""
    wrong = {e.question for e in world.examples if sum(map(ord, e.question)) % 4 == 0}
    systems = {
        "base": world.truth,
        "good": world.truth,
        "worse": lambda q, i: "I see. Yes, and no." if q in wrong else world.truth(q, i),
        "blind": lambda q, i: "No.",
    }
    got = summed([run(world, speak, system=name) for name, speak in systems.items()], world.examples, PLAIN)
    rows = {(c["a"], c["b"]): c for c in got["comparisons"] if c["metric"] == "accuracy_closed"}
    assert list(rows) == [("good", "base"), ("worse", "base"), ("blind", "base"), ("good", "worse"), ("good", "blind")]
    assert rows["good", "base"]["estimate"] == 0 and rows["good", "base"]["p"] == 1
    assert rows["blind", "base"]["estimate"] < -0.2 and rows["good", "blind"]["low"] > 0
    assert rows["good", "blind"]["estimate"] == -rows["blind", "base"]["estimate"]
    assert all(c["p_holm"] >= c["p"] for c in rows.values())
    assert rows["blind", "base"]["minimum_detectable"] > 0
    cells = card_rows(got, "blind")
    assert {"metric", "base", "value", "difference"} == set(cells[0]) and cells[0]["base"].startswith("100.0")
    assert "balanced accuracy" in {row["metric"] for row in cells} and " questions of " in card_note(got)


def test_several_seeds_are_averaged_and_shown_apart(world):
    results = [run(world, world.truth, seed=0), run(world, lambda q, i: "No.", seed=1)]
    got = summed(results, world.examples, PLAIN)["systems"]["base"]["seeds"]
    assert got["values"] == [0, 1] and got["seed_means"][0] == 1.0 > got["seed_means"][1]
    assert got["within_question_variance"] > 0


def test_summary_refuses_what_it_cannot_use(world):
    with pytest.raises(UsageError, match="no outcome"):
        summarise([], world.examples)
    results = [run(world, world.truth, system="a"), run(world, world.truth, system="b")]
    with pytest.raises(UsageError, match="baseline"):
        summed(results, world.examples)
    with pytest.raises(UsageError, match="does not have"):
        summed(results, world.examples[:1])


def test_a_metric_of_ones_own_is_named_by_its_path(world, tmp_path, monkeypatch):
    """A function is a number beside the accuracy; an entry of the table is all that it says, tests included."""
    (tmp_path / "mine.py").write_text(
        "from clinalign.evaluation.metrics import Metric\n"
        "def shouts(outcome, example):\n"
        '    """Whether an answer ends in an exclamation mark."""\n'
        "    return float(outcome.text.endswith('!'))\n"
        "short = Metric('short', 'short', 'Answers of three words', ('result', 'tested'),\n"
        "               score=lambda outcome, example, base: float(len(outcome.text.split()) == 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = PLAIN.model_copy(update={"metrics": ["mine:shouts", "mine:short"]})
    results = [run(world, world.truth, options), run(world, lambda q, i: "No, not here!", options, "loud")]
    got = summed(results, world.examples, options)
    own = {name: got["systems"]["loud"]["metrics"][name] for name in ("shouts", "short")}
    assert {name: found["estimate"] for name, found in own.items()} == {"shouts": 1.0, "short": 1.0}
    assert own["short"]["method"] == "Korn-Graubard" and own["short"]["high"] == 1.0
    assert {c["metric"] for c in got["comparisons"]} >= {"short", "accuracy"} and "shouts" not in got["systems"]
    assert [metric.label for metric in shown("result", got)][-1] == "short"
    assert "Whether an answer ends" in shown("beside", got)[-1].help
    for path, message in {"mine:none": "no attribute 'none'", "nowhere:x": "No module", "mine": "is no function",
                          "clinalign.evaluation.metrics:METRICS": "is no function"}.items():  # fmt: skip
        with pytest.raises(UsageError, match=message):
            summed(results, world.examples, PLAIN.model_copy(update={"metrics": [path]}))


def test_every_decoder_and_seed_is_an_asking_of_its_own():
    """Greedy draws nothing and is asked once; two settings of one decoder have two names."""
    options = EvaluationOptions(
        decoders=["sample", {"name": "sample", "temperature": 0.5}, "beam"], seeds=[3, 4], max_new_tokens=4
    )
    asked = [(ending, decoder.name, seed) for ending, decoder, seed in options.variants(7)]
    assert asked == [
        ("", "greedy", 7), (" (sample)", "sample", 3), (" (sample)", "sample", 4),
        (" (sample 2)", "sample", 3), (" (sample 2)", "sample", 4), (" (beam)", "beam", 7),
    ]  # fmt: skip
    assert [d.seed for _, d, _ in options.variants(7)[1:5]] == [3, 4, 3, 4]
    assert EvaluationOptions().variants(5) == [("", EvaluationOptions().decoder, 5)]
