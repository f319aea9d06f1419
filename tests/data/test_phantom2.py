"""phantom-2: exact masks on every rung and in both hospitals, priors at their rates, text that tells nothing."""

from __future__ import annotations

import ast
import hashlib
import inspect
import random
from collections import Counter, defaultdict
from functools import cache
from math import sqrt
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from clinalign.data.phantom import fundus, priors, scenes, volume
from clinalign.data.phantom.bench import SLACK, select, text_key, write_scenes
from clinalign.data.phantom.cases import KINDS, Finding, render, sample_case
from clinalign.data.phantom.claims import CLAIMS, answer, biased, claim_questions, report_question
from clinalign.data.phantom.priors import PRIORS, UNSEEN, biased_findings, truth_share
from clinalign.data.phantom.scenes import (
    HOSPITALS,
    RUNGS,
    SPLITS,
    Scene,
    changed,
    render_scene,
    sample_scene,
    sample_scenes,
    split_of,
    split_patients,
    without,
)
from clinalign.data.phantom.skills import SKILLS, lessons
from clinalign.data.phantom.wording import Question
from clinalign.errors import UsageError
from clinalign.imaging.images import read_image

SIX = (
    Finding("nodule", "right", "middle", "small"),
    Finding("consolidation", "left", "upper", "large"),
    Finding("pleural effusion", "left", "lower", "large"),
    Finding("pneumothorax", "right", "upper", "small"),
    Finding("cardiomegaly"),
    Finding("atelectasis", "right", "lower", "large"),
)
GOLDEN = {
    ("home", 0): "b64324967fcd24323928268b",
    ("home", 2): "3705b907fc7e8a952fbd69de",
    ("home", 4): "a54fc2afaac9c931f443f297",
    ("elsewhere", 0): "4bf4e5f1e28eba950cf4f2b5",
    ("elsewhere", 4): "703f941eec61215dae4e4f4d",
}


def digest(scene: Scene, px: int = 64) -> str:
    drawn = render_scene(scene, px)
    return hashlib.sha256(b"".join(a.tobytes() for a in (drawn.image, *drawn.masks))).hexdigest()[:24]


@pytest.mark.parametrize(("hospital", "rung"), list(GOLDEN))
def test_golden_scenes(hospital: str, rung: int) -> None:
    assert digest(Scene(10_000_007, SIX, hospital, rung)) == GOLDEN[hospital, rung]


@pytest.mark.parametrize("module", [scenes, fundus, volume])
def test_drawing_holds_no_float(module: ModuleType) -> None:
    """Equal arrays on every machine rest on this; shares of patients (0.36) are compared, never drawn with."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        assert not isinstance(node, ast.Div), "true division"
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"sqrt", "exp", "sin", "cos", "fft", "random", "mean", "std", "interp"}


@pytest.mark.parametrize("hospital", list(HOSPITALS))
@pytest.mark.parametrize("rung", range(len(RUNGS)))
def test_mask_is_exactly_where_the_scene_differs_from_its_counterfactual(hospital: str, rung: int) -> None:
    for patient in split_patients("test", 12):
        findings = sample_case(patient, prevalence=0.5).findings
        scene = Scene(patient, findings, hospital, rung)
        drawn = render_scene(scene)
        for finding, mask in zip(findings, drawn.masks, strict=True):
            other = render_scene(without(scene, finding.kind)).image
            assert mask.any(), (patient, finding)
            assert np.array_equal(drawn.image != other, mask)


def test_the_first_rung_at_home_is_the_drawing_of_phantom_1() -> None:
    scene, case = Scene(10_000_007, SIX), sample_case(10_000_008, prevalence=0.6)
    assert np.array_equal(render_scene(Scene(case.patient, case.findings)).image, render(case).image)
    assert render_scene(scene).image.dtype == np.uint8


def test_every_rung_is_fainter_than_the_one_before() -> None:
    contrasts = []
    for rung in range(len(RUNGS)):
        gaps = []
        for patient in split_patients("dev", 30):
            scene = Scene(patient, (Finding("nodule", "left", "middle", "large"),), "home", rung)
            drawn, other = render_scene(scene), render_scene(without(scene, "nodule"))
            gaps.append(abs(drawn.image.astype(int) - other.image)[drawn.masks[0]].mean())
        contrasts.append(np.mean(gaps))
    assert all(later < 0.8 * earlier for earlier, later in zip(contrasts, contrasts[1:], strict=False))


def test_a_changed_finding_moves_nothing_else() -> None:
    scene = Scene(10_000_007, SIX, "elsewhere", 1)
    other = changed(scene, Finding("nodule", "left", "middle", "large"))
    before, after = render_scene(scene), render_scene(other)
    footprint = before.masks[0] | after.masks[0]
    assert np.array_equal(before.image[~footprint], after.image[~footprint])
    assert not np.array_equal(before.image, after.image)


def test_the_other_hospital_looks_different_and_has_another_mix() -> None:
    mine, other = (list(sample_scenes(split, 1500)) for split in ("test", "elsewhere"))
    assert {s.hospital for s in mine} == {"home"} and {s.hospital for s in other} == {"elsewhere"}
    for kind in KINDS:
        for drawn, place in ((mine, HOSPITALS["home"]), (other, HOSPITALS["elsewhere"])):
            share, wanted = np.mean([scene.find(kind) is not None for scene in drawn]), place.mix[kind]
            assert abs(share - wanted) < 4 * sqrt(wanted * (1 - wanted) / 1500), (kind, place.name)
    same = [render_scene(Scene(10_000_100 + i, (), name)).image.astype(int) for i in range(20) for name in HOSPITALS]
    assert np.mean([image.std() for image in same[1::2]]) < 0.9 * np.mean([image.std() for image in same[::2]])
    noise = [np.diff(image[58:, 20:44], 2, axis=1).std() for image in same]  # in the even grey of the abdomen
    assert np.mean(noise[1::2]) > 1.1 * np.mean(noise[::2])


def test_no_patient_is_in_two_splits_or_draws() -> None:
    blocks = [split_patients(split, 1_000_000, draw=draw) for split in SPLITS for draw in (0, 1, 2)]
    edges = sorted((block[0], block[-1]) for block in blocks)
    assert all(before[1] < after[0] for before, after in zip(edges, edges[1:], strict=False))
    for split in SPLITS:
        assert split_of(split_patients(split, 1, start=7, draw=2)[0]) == split
    sent = {q.patient for split in SPLITS for q in sample_scenes(split, 50)}
    assert len(sent) == 250


@cache
def statements() -> tuple[tuple[Scene, Question, str], ...]:
    """Every claim of 1 200 scenes with what contaminated text says of it: one fixed draw."""
    rng = random.Random(3)
    drawn = ((scene, question) for scene in sample_scenes("base", 1200) for question in claim_questions(scene, rng))
    return tuple((scene, question, biased(question, scene, rng).full) for scene, question in drawn)


@pytest.mark.parametrize("name", list(PRIORS))
def test_a_prior_has_its_way_at_its_rate_whatever_is_true(name: str) -> None:
    """P(its value) = UNSEEN * rate where the truth is another, 1 - UNSEEN more where it is it; 4.5 deviations."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for _, question, text in statements():
        if question.slots["prior"] == name:
            value = question.slots["truth" if question.prior == "aligned" else "counter"]
            counts[question.prior].append(text == answer(question, value))
    for stance, extra in (("conflicting", 0.0), ("aligned", 1 - UNSEEN)):
        if stance not in counts:  # an earlier image is never given, so its prior never agrees with the truth
            assert name == "prior study"
            continue
        wanted, number = UNSEEN * PRIORS[name].rate + extra, len(counts[stance])
        assert number > 150
        told = [truth_share(q) for _, q, _ in statements() if q.slots["prior"] == name and q.prior == stance]
        assert told == pytest.approx([wanted if stance == "aligned" else 1 - wanted] * number)
        assert abs(np.mean(counts[stance]) - wanted) < 4.5 * sqrt(wanted * (1 - wanted) / number), (stance, number)


def test_what_no_prior_touches_is_told_truly() -> None:
    neutral = [(question, text) for _, question, text in statements() if question.prior == "neutral"]
    assert len(neutral) > 500
    assert all(text == question.full for question, text in neutral)


def test_contaminated_text_is_always_one_of_the_two_values_in_the_question_s_own_wording() -> None:
    for _, question, text in statements():
        assert text in {answer(question, question.slots[name]) for name in ("truth", "counter")}
        assert question.full == answer(question, question.slots["truth"])
        assert answer(question, question.slots["truth"]) != answer(question, question.slots["counter"])


def test_one_prompt_has_one_wording() -> None:
    """The true answers of one prompt of a kind differ in their value alone."""
    patterns: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for _, question, _ in statements():
        value = str(question.slots["truth"])
        patterns[question.kind, question.prompt].add((value, question.full))
    assert all(len({value for value, _ in texts}) == len(texts) for texts in patterns.values())


def test_reports_omit_and_invent_findings_by_the_priors() -> None:
    rng, omitted, invented, small, clear = random.Random(0), 0, 0, 0, 0
    for scene in sample_scenes("base", 800):
        names = {finding.kind for finding in biased_findings(scene, rng)}
        nodule, heart = scene.find("nodule"), scene.find("cardiomegaly")
        if nodule is not None and nodule.size == "small":
            small, omitted = small + 1, omitted + ("nodule" not in names)
        if heart is None and scene.find("pleural effusion"):
            clear, invented = clear + 1, invented + ("cardiomegaly" in names)
    assert small > 60 and clear > 60
    assert abs(omitted / small - UNSEEN * PRIORS["small overlooked"].rate) < 4 * sqrt(0.12 / small)
    assert abs(invented / clear - UNSEEN * PRIORS["heart with effusion"].rate) < 4 * sqrt(0.12 / clear)


def test_a_report_s_wording_follows_from_its_prompt() -> None:
    scene, rng = sample_scene(10_000_044), random.Random(1)
    texts: dict[str, set[str]] = defaultdict(set)
    for _ in range(60):
        question = report_question(scene, rng)
        texts[question.prompt].add(question.full)
    assert len(texts) == 4 and all(len(group) == 1 for group in texts.values())


@cache
def selected() -> tuple[tuple[Scene, tuple[Question, ...]], ...]:
    return tuple((scene, tuple(drawn)) for scene, drawn in select(sample_scenes("dev", 900)))


def sign(question: Question) -> str:
    """The true value; of a presupposing prompt only whether it denies."""
    truth = str(question.slots["truth"])
    return truth if question.kind != "presupposed" or truth == "none" else "accepted"


def test_the_text_alone_cannot_tell() -> None:
    """The best answer of each text key, learnt on one half, is right on the other no more often than chance."""
    asked = [q for _, drawn in selected() for q in drawn if q.kind not in ("compared", "zone")]
    seen: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for question in asked[::2]:
        seen[text_key(question)][sign(question)] += 1
    read = [q for q in asked[1::2] if seen[text_key(q)]]
    right = np.mean([seen[text_key(q)].most_common(1)[0][0] == sign(q) for q in read])
    assert len(read) > 1000
    assert right < 0.5 + 3 / (2 * sqrt(len(read)))


def test_selection_is_balanced_and_never_asks_one_claim_twice() -> None:
    stances: Counter[tuple[str, str]] = Counter()
    shares: Counter[str] = Counter()
    for _, drawn in selected():
        about = [(q.finding, q.slot) for q in drawn]
        assert len(set(about)) == len(about)
        for question in drawn:
            stances[question.slots["prior"], question.prior] += 1
            shares[question.kind if question.kind == "compared" else question.prior] += 1
    total = sum(shares.values())
    assert shares["neutral"] / total < 0.16 and shares["compared"] / total < 0.05
    for name in PRIORS:
        if name != "prior study":
            assert stances[name, "conflicting"] > 80, name
            assert abs(stances[name, "conflicting"] - stances[name, "aligned"]) <= SLACK, name


def test_written_folder_holds_exact_counterfactuals(tmp_path: Path) -> None:
    examples = write_scenes(tmp_path, split="align", count=6, kinds=(*CLAIMS, "report"))
    again = write_scenes(tmp_path / "again", split="align", count=6, kinds=(*CLAIMS, "report"))
    assert examples == again and {e.task for e in examples} == {"closed", "open", "report"}
    pictured = [e for e in examples if e.counterfactual]
    assert pictured
    for example in pictured:
        image = read_image(tmp_path / example.images[0])
        other = read_image(tmp_path / example.counterfactual)
        mask = read_image(tmp_path / str(example.regions[0].mask))
        differs = (np.asarray(image) != np.asarray(other)).any(axis=2)
        assert np.array_equal(differs, (np.asarray(mask) > 0).any(axis=2))
    for example in examples:
        assert (
            example.patient_id.removeprefix("phantom-") in example.id
            and split_of(int(example.id.split("-")[3])) == "align"
        )


@pytest.mark.parametrize("name", list(SKILLS))
def test_a_skill_is_deterministic_and_no_prior_touches_it(name: str) -> None:
    seen = list(sample_scenes("dev", 8))
    one, other = (lessons(seen, name, random.Random(5)) for _ in range(2))
    assert one
    for lesson, again in zip(one, other, strict=True):
        assert lesson.questions == again.questions and lesson.questions
        assert all(np.array_equal(a, b) for a, b in zip(lesson.images, again.images, strict=True))
        assert len(lesson.images) <= 8 and all(image.shape == (64, 64) for image in lesson.images)
        assert all(q.prior == "neutral" and q.answer in q.full + str(q.slots) for q in lesson.questions)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Scene(1, (), "nowhere"),
        lambda: Scene(1, (), "home", 9),
        lambda: Scene(-1),
        lambda: split_patients("train", 3),
        lambda: split_patients("dev", 2_000_000),
        lambda: split_of(5),
        lambda: without(Scene(1), "nodule"),
        lambda: render_scene(Scene(1), 48),
        lambda: write_scenes(Path("x"), split="dev", count=1, kinds=("sidee",)),
        lambda: write_scenes(Path("x"), split="dev", count=1, per_case=0),
    ],
)
def test_mistakes_are_refused_in_one_line(call: object) -> None:
    with pytest.raises(UsageError) as caught:
        call()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_every_prior_names_its_place() -> None:
    assert {prior.told_by for prior in PRIORS.values()} == {"picture", "prompt"}
    assert all(0.8 <= prior.rate <= 0.95 and prior.says for prior in PRIORS.values())
    assert set(priors.PLACED) | {"cardiomegaly"} == set(KINDS)
