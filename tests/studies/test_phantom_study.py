"""The phantom study: its rules by hand, its control without leakage, a whole small study that resumes and repeats."""

import hashlib
import json
import random
import shutil
from dataclasses import replace

import pytest
import tiny
from safetensors import safe_open

from clinalign.data.phantom.dataset import split_patients, write_phantoms
from clinalign.data.phantom.language_prior import LANGUAGE_PRIOR
from clinalign.language.edit import edit
from clinalign.language.substitution import values_of
from clinalign.measuring.evidence import can_flip, condition_of, flip_rows, paired
from clinalign.measuring.judging import judged
from clinalign.measuring.measure import Results
from clinalign.measuring.options import EvaluationOptions
from clinalign.models import load_vlm
from clinalign.records import Answer, Measurement
from clinalign.training.trainer import TrainResult
from studies.phantom import corpus, jobs, page, settings, shift, tables
from studies.phantom import study as phantom
from studies.phantom.jobs import Job, Measure, Place
from studies.phantom.settings import Study

SMALL = {"resamples": 100, "permutations": 100, "batch_size": 8, "max_new_tokens": 4}
STEPS = {"max_steps": 2, "batch": 4, "lora": {"r": 2, "alpha": 4, "dropout": 0.0}}
STUDY = Study(
    "tiny", {"align": 12, "dev": 8, "test": 10}, per_case=2, seeds=(0, 1), train=STEPS, evaluation=SMALL
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny.save(tiny.tiny_llava(), tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    examples = write_phantoms(folder, split="dev", patients=split_patients("dev", 24), per_case=3)
    return folder, examples


def draw(*parts):
    return int(hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:8], 16) / 16**8


def biased(example, trust=0.0, seed=0):
    """The clean full answer, with the prior's value where the draw is not below `trust`."""
    slot, text = example.slot, example.full
    value = example.slots.get(slot)
    if example.prior != "conflicting" or draw(example.id, seed) < trust:
        return text
    if slot == "presence":
        slots, rng = example.slots, random.Random(0)
        return edit(example.question, text, example.answer, slots, rng, task=example.task).text
    return text.replace(value, LANGUAGE_PRIOR[slot][value][0])


def said(example, text, system="base", seed=0):
    return judged(example, shift.Said(text), system=system, decoder="greedy", seed=seed)


def answering(vlm, examples, folder, options, *, round=0, quarantine=None):
    """The prior's answers, as ids of the model's tokenizer."""
    found = []
    for example in examples:
        text = biased(example)
        ids = [*vlm.tokenizer(text, add_special_tokens=False)["input_ids"], vlm.tokenizer.eos_token_id]
        found.append(Answer(example.id, vlm.name, round, example.question, text, ids, "stop"))
    return found


# The rules


def test_every_method_gets_the_same_number_of_trials():
    grids = {label: settings.grid(label) for label in settings.TRAINED}
    assert {len({json.dumps(s, sort_keys=True) for s in each}) for each in grids.values()} == {6}


def test_the_rule_prefers_right_answers_among_settings_that_harm_nothing():
    base = {"accuracy_prior_neutral": 0.90}

    def row(right, style=1.0, kept=0.90):
        return {"right": right, "style_preserved": style, "accuracy_prior_neutral": kept}

    given = [{"lr": 1e-4, "beta": 0.1}, {"lr": 1e-4, "beta": 1.0}, {"lr": 2e-4, "beta": 1.0}]
    assert settings.choose([row(0.7), row(0.8), row(0.9, style=0.92)], base, given) == 1
    assert settings.choose([row(0.7), row(0.6), row(0.9, kept=0.879)], base, given) == 0
    assert settings.choose([row(0.7), row(0.6), row(0.8, kept=0.88)], base, given) == 2, "two points are still allowed"
    assert settings.choose([row(0.7), row(0.7), row(0.7)], base, given) == 1, "smaller lr, then larger beta"
    assert settings.choose([row(0.7, 0), row(0.6, 0), row(0.9, 0)], base, given) == 2, "none qualifies: the most right"


def test_the_second_grid_is_anchor_by_gamma_by_v_prime_and_then_around_the_best():
    first = settings.first_cells({"method": "firempo", "lr": 2e-4, "beta": 0.1})
    assert len(first) == len({c.name for c in first}) == 18
    anchors = (None, "answer", "spans")
    wanted = {
        (kind, gamma, on) for kind in ("noise", "inpaint", "counterfactual") for gamma in (0.1, 1.0) for on in anchors
    }
    assert {(c.kind, c.setting["gamma"], c.setting.get("nll_on")) for c in first} == wanted
    more = settings.second_cells(first[-1], {"method": "sft", "lr": 5e-4}, 120)
    assert [c.rounds for c in more] == [1, 1, 1, 2, 1] and more[-1].setting["max_steps"] == 240
    assert len(settings.second_cells(first[0], {"method": "sft", "lr": 5e-4}, 120)) == 3, "no anchor, no weights"


# The control


def test_the_bias_is_the_one_with_the_most_right_answers_and_nearest_to_zero():
    def claim(score, truth):
        return shift.Claim("side", score, truth, "left", "right")

    # right (negative) is said too often: -2 and -1 are truly left, -3 truly right. A bias above 2, below 3 mends both.
    claims = {str(i): claim(*c) for i, c in enumerate([(-3.0, False), (-2.0, True), (-1.0, True), (4.0, True)])}
    assert shift.fit(claims) == {"side": 2.5}
    assert shift.fit({"a": claim(-1.0, False), "b": claim(1.0, True)}) == {"side": 0.0}
    assert shift.fit({"a": claim(-1.0, True), "b": claim(-2.0, True)})["side"] > 2.0, "the all-first end is tried"
    assert shift.fit({"a": claim(1.0, False)})["side"] < -1.0, "the all-second end is tried"


def test_the_other_claim_of_a_two_valued_question_does_not_tell_the_truth(world):
    """Whatever the truth, an answer is turned into the same other answer: the control learns nothing from the edit."""
    flipped = {"yes": "no", "no": "yes", "left": "right", "right": "left", "large": "small", "small": "large"}
    seen = 0
    for example in world[1]:
        if shift.group_of(example) is None:
            continue
        slot, text = example.slot, biased(example)
        other_slots = example.slots | {slot: flipped[example.slots[slot]]}
        cases = ((example.answer, example.slots), (flipped[example.answer], other_slots))
        edits = [edit(example.question, text, truth, s, random.Random(1), task=example.task) for truth, s in cases]
        made = {one.text for one in edits}
        assert len(made) == 1, (example.question, text, made)
        seen += 1
    assert seen > 30


def test_the_shift_chooses_between_the_own_answer_and_its_edit(world, model, monkeypatch):
    folder, examples = world
    clean = {e.id: said(e, biased(e)) for e in examples}
    wrong = {e.id for e in examples if e.prior == "conflicting"}
    strength = {e.id: 1.0 + 2.0 * (e.id not in wrong) for e in examples}  # prior answers are less sure of themselves
    monkeypatch.setattr(shift, "margins", lambda vlm, pairs, batch_size: [strength[i] for i in order])
    order = [e.id for e in examples if shift.group_of(e) is not None and clean[e.id].correct is not None]
    claims = shift.read_claims(load_vlm(model), examples, clean, folder)
    assert set(claims) == set(order) and wrong <= set(claims)
    assert all((claims[i].score > 0) == (claims[i].truth == clean[i].correct) for i in order)
    unmoved = shift.apply(examples, clean, claims, {}, "shift")
    assert [o.text for o in unmoved] == [clean[e.id].text for e in examples]
    biases = shift.fit(claims)
    assert biases["side"] > 0 and biases["size"] > 0 and biases["presence of nodule"] == 0.0
    moved = {o.example_id: o for o in shift.apply(examples, clean, claims, biases, "shift")}
    assert all(moved[i].correct for i in wrong) and all(o.system == "shift" for o in moved.values())
    assert all(moved[e.id].text == clean[e.id].text for e in examples if e.slot == "zone")


# The tables


def test_collapse_reads_the_end_of_the_curves():
    steps = 20
    curve = [
        {"rewards/accuracies": 1.0 if i >= 10 else 0.5, "grad_norm": 2.0 if i < 5 else 0.1, "rewards/margins": float(i)}
        for i in range(steps)
    ]
    found = tables.collapse([curve, curve])
    assert found == {"reward_accuracy": 1.0, "gradient_norm_ratio": 20.0, "margin": pytest.approx(14.5)}


def test_every_question_can_be_read_back(world):
    _, examples = world
    base = [said(e, biased(e)) for e in examples]
    other = [said(e, e.answer if i % 3 else "I cannot tell.", "x", 7) for i, e in enumerate(examples)]
    margins = [
        Measurement(o.example_id, "x", "greedy", 7, condition, "margin", value)
        for o in other[:2]
        for condition, value in (("clean", 2.25), ("counterfactual", -1.5))
    ]
    runs = {"base": {0: Results(base, [])}, "x": {7: Results(other, margins)}}
    found = tables.every_question(runs, examples, base)
    first, second = found["runs"]
    assert first["right"] == "".join("1" if o.correct else "0" for o in base) and set(first["style_preserved"]) == {"1"}
    assert [found["answers"][int(i)] for i in second["texts"].split()] == [o.text for o in other[: len(examples)]]
    assert second["right"].count("-") >= sum(i % 3 == 0 for i in range(len(examples)))
    assert "1" not in second["style_preserved"]
    assert second["margin_counterfactual"].split()[:3] == ["-1.500", "-1.500", "-"]
    assert found["questions"]["id"].split() == [e.id for e in examples]
    got = tables.shares(Results(other, margins), examples, base, 45.0)
    assert got["right"] == second["right"].count("1") / len(examples) < got["accuracy"]


# A job


def test_a_job_is_trained_and_measured_once_and_gives_the_same_again(tmp_path, model, monkeypatch):
    results = []
    for name in ("a", "b"):
        place = Place(corpus.build(STUDY, tmp_path / name, model, answering), tmp_path / name, model)
        jobs.fill_reference(place, "noise")
        [shard] = (tmp_path / name).rglob("*.safetensors")
        with safe_open(shard, "pt") as file:
            records = {key.rpartition("/")[0] for key in file.keys()}
        assert len(records) == len(place.corpus.pairs("noise")), "the reference knows every pair"
        job = Job("noise", STUDY.options({"method": "firempo", "lr": 1e-2}), 3)
        measure = Measure(STUDY.measure("dev"), True)
        assert jobs.run(place, job, measure) > 0 and jobs.run(place, job, measure) == 0.0
        assert sum(1 for _ in (tmp_path / name).rglob("*.safetensors")) == 2, "only the adapter came"
        found = place.results(job, measure)
        conditions = {m.condition for m in found.measurements if m.name == "margin" and m.value is not None}
        assert conditions <= {"clean", "lesion_noise", "control", "counterfactual", "inpainted"}
        assert {m.condition for m in found.measurements} >= {"lesion_noise", "control", "counterfactual", "inpainted"}
        results.append((found, [row["loss"] for row in place.curve(job)]))
    assert results[0] == results[1]
    state = json.loads((place.folder(job) / "trained.json").read_text())
    assert state["steps"] == 2 and state["left_out"] == 0


def test_inpainting_and_true_removal_are_measured_apart(world, model):
    folder, examples = world
    shown = [e for e in examples if can_flip(e)][:6]
    clean = {e.id: said(e, biased(e)) for e in shown}
    vlm, options = load_vlm(model), EvaluationOptions(flips=["counterfactual"], **SMALL)
    inpainted = jobs.inpainted(vlm, shown, clean, folder, options)
    pairs = {e.id: paired(vlm, e, clean[e.id].text, values_of(shown)) for e in shown}
    rows = flip_rows(vlm, shown, pairs, folder, options, options.batch_size)
    exact = {name: row[2] for name, found in rows.items() for row in found if row[0] == "counterfactual"}
    assert {m.condition for m in inpainted} == {"inpainted"} and {m.example_id for m in inpainted} == set(exact)
    assert any(abs(m.value - exact[m.example_id]) > 1e-3 for m in inpainted)


# A whole study, with a stand-in for training: what a system answers follows from its method and seed.

TRUST = {"base": 0.0, "firempo": 0.7, "sft": 0.9, "dpo": 0.5, "rrpo": 0.5, "mask_dpo": 0.4}


@pytest.fixture
def staged(monkeypatch, model):
    """Counts trainings and evaluations; small grids."""
    for name, value in {
        "LRS": (1e-4,),
        "BETAS": (0.1, 1.0),
        "SFT_LRS": (1e-4, 2e-4),
        "GAMMAS": (1.0,),
        "NLL_ON": ("spans",),
    }.items():
        monkeypatch.setattr(settings, name, value)
    monkeypatch.setattr(settings, "KINDS", ("noise", "counterfactual"))
    done = {"train": [], "measure": []}
    shared = load_vlm(model)

    def train(vlm, pairs, folder, options, out, *, label, **more):
        done["train"].append(label)
        short = max(len(p.chosen) for p in pairs) < 20
        write = [
            {"step": i, "rewards/accuracies": 1.0 if short else 0.7, "rewards/margins": 1.0, "grad_norm": 9.0 / 3**i}
            for i in range(12)
        ]
        (out / "adapter").mkdir(parents=True)
        (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in write))
        (out / "style.json").write_text(json.dumps({"short": short}))
        return TrainResult(out / "adapter", 2, out / "metrics.jsonl", 0.0)

    def evaluate(vlm, examples, folder, options, *, system, seed):
        done["measure"].append((options.split, system))
        trust = TRUST[system.partition("-")[0]]
        outcomes = [said(e, biased(e, trust, (system, seed)), system, seed) for e in examples]
        flippable = [e for e in examples if can_flip(e)] if options.flips else []
        rows = margins(shared, flippable, {}, folder, options, 8, system)
        measured = [Measurement(e.id, system, "greedy", seed, *row) for e in flippable for row in rows[e.id]]
        return Results(outcomes, measured)

    def margins(vlm, examples, pairs, folder, options, batch_size, system=""):
        return {
            e.id: [["clean", "margin", 1.0, None, ""]]
            + [
                [c, "margin", round(draw(e.id, c, system) - 0.3, 3), 45.0 if c != "counterfactual" else None, ""]
                for option in options.flips
                for c in [condition_of(option, e)]
            ]
            for e in examples
        }

    def another_round(place, name, kind, number):
        for file in ("pairs-{}.parquet", "numbers-{}.json"):
            shutil.copy(place.folder / file.format(kind), place.folder / file.format(name))

    monkeypatch.setattr(jobs, "train", train)
    monkeypatch.setattr(jobs, "evaluate", evaluate)
    monkeypatch.setattr(jobs, "flip_rows", margins)
    monkeypatch.setattr(jobs, "load_vlm", lambda name, adapter=None: shared)
    draw_pairs = corpus.with_corruption
    monkeypatch.setattr(jobs, "fill_reference", lambda place, name: draw_pairs(place.corpus, model, name))
    monkeypatch.setattr(
        phantom.C, "another_round", lambda c, model, adapter, name, kind, number: another_round(c, name, kind, number)
    )
    build = corpus.build
    monkeypatch.setattr(phantom.C, "build", lambda what, work, name: build(what, work, name, answering))
    return done


def stable(result):
    kept = {k: v for k, v in result.items() if k not in ("seconds_this_call", "machine")}
    return json.dumps(kept, allow_nan=False)


@pytest.mark.slow
def test_a_whole_study_resumes_repeats_and_reads_test_only_for_what_dev_chose(tmp_path, staged, model):
    result = phantom.study(STUDY, tmp_path / "a", model, 0)
    trained, measured = list(staged["train"]), list(staged["measure"])
    assert len(set(trained)) == len(trained) and len(set(measured)) == len(measured), "nothing twice"
    picked = {job for split, job in measured if split == "test"}
    chosen = {json.dumps(s, sort_keys=True) for s in result["chosen"].values()}
    for label, cells in result["grids"].items():
        assert len(cells) == 2
        for cell in cells:
            if cell["run"] in picked:
                assert json.dumps(cell["setting"], sort_keys=True) in chosen, (label, cell)
    first = ["delta_overall", "delta_overall_low", "delta_overall_high", "prior_conflicting_gain", "prior_neutral_loss"]
    assert list(result)[:6] == [*first, "style_preserved"]
    assert {"collapse_reward_accuracy", "collapse_words", "probe_side", "answer_side"} <= set(result)
    assert result["delta_overall"] > 0 and result["prior_conflicting_gain"] > 25 and result["prior_neutral_loss"] == 0
    assert result["collapse_reward_accuracy"] == 1.0 and result["dynamics"]["dpo"]["reward_accuracy"] == 0.7
    assert result["corpora"]["reference"]["edit_distance_mean"] > result["corpora"]["noise"]["edit_distance_mean"]
    assert result["systems"]["firempo"]["seeds"]["values"] == [0, 1]
    flips = set(result["systems"]["base"]["flips"])
    assert {"flip_lesion_noise", "flip_control", "flip_counterfactual", "flip_inpainted"} <= flips
    questions = json.loads((tmp_path / "a" / phantom.QUESTIONS).read_text())
    base_questions = questions["test"]["runs"][0]
    share = base_questions["right"].count("1") / len(base_questions["right"])
    assert share == pytest.approx(result["systems"]["base"]["metrics"]["right"]["estimate"], abs=1e-6)

    again = phantom.study(STUDY, tmp_path / "a", model, 0)
    assert (staged["train"], staged["measure"]) == (trained, measured), "a finished study computes nothing"
    victim = next((tmp_path / "a").rglob("sft-1-*/test*.parquet"))
    victim.unlink()
    resumed = phantom.study(STUDY, tmp_path / "a", model, 0)
    assert len(staged["measure"]) == len(measured) + 1 and staged["train"] == trained
    fresh = phantom.study(STUDY, tmp_path / "b", model, 0)
    assert stable(result) == stable(again) == stable(resumed) == stable(fresh)

    path = tmp_path / "docs" / "phantom-study.md"
    page.write(json.loads(json.dumps(result)), path)
    text = path.read_text()
    assert f"{result['delta_overall']:+.1f} [{result['delta_overall_low']:+.1f}" in text
    assert result["second_grid"]["winner"] in text and (path.parent / "images" / page.FIGURE).is_file()
    assert all(f"| {settings.LABELS[label]} |" in text for label in result["systems"])
    assert text == page.render(result)


def test_quick_takes_one_seed_and_the_default_settings_and_its_json_alone_gives_the_page(tmp_path, staged, model):
    study = replace(STUDY, seeds=(0,), grid=False)
    result = phantom.study(study, tmp_path / "work", model, 0)
    assert len(staged["train"]) == len(settings.TRAINED) and result["second_grid"] is None
    assert {split for split, job in staged["measure"] if job != "base"} == {"test"}
    assert result["chosen"] == {label: settings.default(label) for label in settings.TRAINED}
    assert "whole grid" not in page.render(result) and "Trying to beat" not in page.render(result)
    (tmp_path / "f.json").write_text(json.dumps(result))
    assert phantom.main(["--render", str(tmp_path / "f.json"), "--page", str(tmp_path / "p.md")]) == 0
    assert (tmp_path / "p.md").read_text() == page.render(result)


def test_another_of_the_bases_wordings_is_told_from_damaged_text(world):
    _, examples = world
    known = {e.id: e for e in examples}
    base = [said(e, e.full) for e in examples]
    assert all(value == 1.0 for _, value in tables.own_wording(base, known, base))
    side = [e for e in examples if e.slot == "side"]
    wordings = {tables.wording(o, known[o.example_id]) for o in base if known[o.example_id] in side}
    assert 1 < len(wordings) < len(side), "finding and side are left out, so that answers share wordings"
    finding = side[0].finding
    elsewhere = next(e for e in side if e.finding != finding and e.finding in e.full)
    switched = said(side[0], elsewhere.full.replace(elsewhere.finding, finding))
    damaged = replace(switched, text=switched.text[:-1] + " of the the chest")
    got = dict(tables.own_wording([switched], known, base)), dict(tables.own_wording([damaged], known, base))
    assert [list(one.values()) for one in got] == [[1.0], [0.0]]
