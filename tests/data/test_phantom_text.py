"""Phantom text: every answer tells the truth of its case, the prior strikes as often as stated, the writer balances."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clinalign.data.phantom import text
from clinalign.data.phantom.cases import KINDS, Case, Finding, box, counterfactual, render, sample_case
from clinalign.data.phantom.dataset import SLACK, SPLITS, select, split_patients, write_phantoms
from clinalign.data.phantom.formats import LETTERS
from clinalign.data.phantom.text import CLAIM_KINDS, IMAGES, KINDS_OF_QUESTION, PAIR_KINDS, Question
from clinalign.data.phantom.text_only import GENERAL, KNOWLEDGE
from clinalign.errors import UsageError
from clinalign.records import Example
from clinalign.storage import read_table, write_table

TEXT_KINDS = [kind for kind in KINDS_OF_QUESTION if kind != "box"]
VALUES = {"side": {"left", "right"}, "size": {"small", "large"}, "zone": {"upper", "middle", "lower"}}


@pytest.fixture(scope="module")
def asked() -> list[tuple[Case, Question]]:
    """Every question of 1 500 cases, boxes apart."""
    return [
        (case, q) for case, qs in text.stream(range(1500), kinds=TEXT_KINDS, per_case=200, prevalence=0.4) for q in qs
    ]


def words(full: str) -> list[str]:
    return re.findall(r"[a-z]+", full.lower())


def said(full: str, slot: str) -> list[str]:
    """The values of a slot that a text names, by whole words."""
    return [word for word in words(full) if word in VALUES[slot]]


def denied(full: str) -> bool:
    return bool({"no", "absent", "not", "neither"} & set(words(full)))


def finding_of(case: Case, kind: str | None) -> Finding | None:
    return next((f for f in case.findings if f.kind == kind), None)


def test_every_claim_answer_states_the_truth_of_its_case_once(asked: list[tuple[Case, Question]]) -> None:
    checked: Counter[str] = Counter()
    for case, q in asked:
        kind = q.slots.get("base", q.kind)
        if kind not in CLAIM_KINDS:
            continue
        checked[q.kind] += 1
        finding = finding_of(case, q.finding)
        assert q.finding in q.full.lower()
        if q.slot == "presence":
            assert denied(q.full) == (finding is None)
            assert q.answer == q.slots["presence"] == ("no" if finding is None else "yes")
        else:
            assert finding is not None and not denied(q.full)
            truth = getattr(finding, q.slot)
            assert said(q.full, q.slot) == [truth] == [q.slots[q.slot]]
            assert q.answer == (truth if q.task == "open" else "yes" if q.slots["asked"] == truth else "no")
        assert not any(said(q.full, other) for other in VALUES if other != q.slot), q.full
    assert set(checked) == {*CLAIM_KINDS, "indication", "example"} and min(checked.values()) > 500


def test_claim_answers_are_sentences_of_9_to_16_words_in_at_least_4_styles(asked: list[tuple[Case, Question]]) -> None:
    styles = defaultdict(set)
    for _, q in asked:
        assert q.full[0].isupper() and q.full.endswith("."), q.full
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]|  |\ba cardiomegaly", q.full), q.full
        if q.kind in (*CLAIM_KINDS, "options", "presupposed", "which"):
            assert 9 <= len(q.full.split()) <= 16, q.full
            if q.finding == "nodule":
                styles[q.kind].add(re.sub(r"\b(left|right|small|large|upper|middle|lower|[A-E])\b", "_", q.full))
    assert all(len(styles[kind]) >= 4 for kind in CLAIM_KINDS)


def test_other_formats_state_the_truth(asked: list[tuple[Case, Question]]) -> None:
    seen = set()
    for case, q in asked:
        finding = finding_of(case, q.finding)
        seen.add(q.kind)
        if q.kind == "which":
            side, zone = said(q.prompt, "side")[0], said(q.prompt, "zone")[0]
            there = [f.kind for f in case.findings if (f.side, f.zone) == (side, zone)]
            assert there == ([] if q.answer == "none" else [q.answer])
            assert [kind for kind in KINDS if kind in q.full.lower()] == there
        elif q.kind == "presupposed":
            assert denied(q.full) == (finding is None) and q.slots["presence"] == ("no" if finding is None else "yes")
            if finding is not None:
                assert said(q.full, q.slot) == [getattr(finding, q.slot)] == [q.answer]
        elif q.kind == "given":
            assert (
                finding is not None and said(q.full, q.slot) == [getattr(finding, q.slot)] == said(q.prompt, q.slot)[:1]
            )
        elif q.kind == "no_image":
            assert q.answer == "no image" and "image" in q.full
        elif q.kind == "knowledge":
            facts = {q for q, _ in GENERAL} | {p.split("{a}")[0] for p, _ in KNOWLEDGE}
            assert any(q.prompt.startswith(fact) for fact in facts) and q.answer == q.full
    assert {"which", "presupposed", "given", "no_image", "knowledge"} <= seen


def read_report(report: str) -> dict[str, tuple[str | None, ...]]:
    """Kind to (presence, side, zone, size), read by rules that know nothing of the writer's patterns."""
    out: dict[str, tuple[str | None, ...]] = {}
    for sentence in report.split("."):
        for kind in KINDS:
            place = sentence.lower().find(kind)
            if place < 0:
                continue
            assert kind not in out, f"{kind} told twice: {report}"
            if denied(sentence):
                out[kind] = ("no", None, None, None)
                continue
            after = re.split(r"\ban? (?:small|large)|,", sentence[place:])[0]
            size = sentence[:place].split()[-1] if kind != "cardiomegaly" else None
            out[kind] = ("yes", *((said(after, slot) or [None])[0] for slot in ("side", "zone")), size)
    return out


def expected(case: Case, kind: str) -> tuple[str | None, ...]:
    finding = finding_of(case, kind)
    if finding is None:
        return ("no", None, None, None)
    zone = finding.zone if kind in ("nodule", "consolidation", "atelectasis") else None
    return ("yes", finding.side, zone, finding.size)


def test_a_report_tells_each_kind_once_and_truly_in_3_to_5_sentences() -> None:
    lengths = Counter()
    for patient in range(600):
        case = sample_case(patient, prevalence=0.5)
        report = text.report(case, random.Random(patient))
        lengths[report.count(".")] += 1
        assert read_report(report) == {kind: expected(case, kind) for kind in KINDS}, (case, report)
    assert set(lengths) == {3, 4, 5}


def test_a_caption_is_one_true_sentence() -> None:
    for patient in range(300):
        case = sample_case(patient, prevalence=0.4)
        caption = text.caption(case, random.Random(patient))
        assert caption.count(".") == 1
        if not case.findings:
            assert "no abnormality" in caption
        assert read_report(caption) == {f.kind: expected(case, f.kind) for f in case.findings}


def test_options_put_the_gold_under_uniform_letters_and_never_among_the_distractors(
    asked: list[tuple[Case, Question]],
) -> None:
    letters: Counter[str] = Counter()
    for case, q in asked:
        if q.kind != "options":
            continue
        listed = re.findall(r"(?:^|[\s(])([A-E])[.)] ([a-z ]+?)(?=\s*\n|\s\(?[A-E][.)]|$)", q.prompt)
        assert [letter for letter, _ in listed] == list(LETTERS), q.prompt
        gold = q.finding if q.slot == "finding" else getattr(finding_of(case, q.finding), q.slot)
        assert [letter for letter, option in listed if option == gold] == [q.answer]
        assert f"{q.answer}, {gold}," in q.full or q.full.endswith(f"{q.answer}, {gold}.")
        if q.slot == "finding":
            present = {f.kind for f in case.findings}
            assert [option for _, option in listed if option in present] == [gold]
        letters[q.answer] += 1
    total = sum(letters.values())
    assert total > 4000
    chi2 = sum((letters[letter] - total / 5) ** 2 / (total / 5) for letter in LETTERS)
    assert chi2 < 18.5  # 99.9th percentile, 4 degrees of freedom


def test_no_prompt_gives_its_answer_away(asked: list[tuple[Case, Question]]) -> None:
    """A prompt names no value or all of them (open), and every prompt meets each answer about as often as the rest."""
    answers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for _, q in asked:
        if q.kind not in CLAIM_KINDS:
            continue
        answers[(q.slot, q.prompt)][q.answer] += 1
        if q.task == "open":
            assert set(said(q.prompt, q.slot)) in (set(), VALUES[q.slot])
    for (slot, prompt), counts in answers.items():
        total, largest = sum(counts.values()), max(counts.values())
        chance = 0.6 if slot == "presence" else 1 / 3 if slot == "zone" else 0.5
        if total >= 40:
            assert largest / total < chance + 4.5 * (chance * (1 - chance) / total) ** 0.5, (prompt, counts)


def test_an_indication_is_labelled_by_what_it_gives_away(asked: list[tuple[Case, Question]]) -> None:
    effects: Counter[str] = Counter()
    for case, q in asked:
        if q.kind != "indication":
            continue
        line = q.prompt.split(".")[0]
        finding = finding_of(case, q.finding)
        effects[q.slots["indication"]] += 1
        names = "suspected" in line and q.slot in ("side", "presence")
        agrees = finding is not None and said(line, "side") == [finding.side] and q.finding in line
        assert q.slots["indication"] == ("other" if not names else "carries" if agrees else "contradicts")
    assert min(effects["carries"], effects["contradicts"], effects["other"]) > 300


@pytest.mark.parametrize(
    ("kinds", "slot", "value", "share"),
    [
        (("side", "side_closed", "options", "indication", "example"), "side", "left", 0.70),
        (("size", "size_closed", "options", "indication", "example"), "size", "large", 0.70),
        (("presence", "indication", "example"), "presence", "yes", 0.65),
    ],
)
def test_the_prior_strikes_as_often_as_stated_and_changes_only_the_claim(
    asked: list[tuple[Case, Question]], kinds: tuple[str, ...], slot: str, value: str, share: float
) -> None:
    rng = random.Random(7)
    struck = total = 0
    for _, q in asked:
        if q.kind not in kinds or q.slot != slot:
            continue
        biased = text.contaminate(q, rng)
        same = (biased.prompt, biased.answer, biased.slots, biased.prior) == (
            q.prompt,
            q.answer,
            q.slots,
            q.prior,
        )
        assert same
        reachable = q.slots[slot] == value and (slot != "presence" or q.finding in ("pneumothorax", "consolidation"))
        assert (q.prior == "conflicting") == reachable
        if not reachable:
            assert biased.full == q.full
            continue
        total += 1
        if biased.full != q.full:
            struck += 1
            if slot == "presence":
                assert denied(biased.full) and not denied(q.full)
            else:
                assert said(biased.full, slot) == [{"left": "right", "large": "small"}[value]]
            if q.kind == "options":
                letter, told = re.search(r"\b([A-E]), (\w+)", biased.full).groups()  # type: ignore[union-attr]
                assert q.slots["options"][LETTERS.index(letter)] == told
            a, b = q.full.split(), biased.full.split()
            allowed = 1 if slot in ("side", "size") and q.kind != "options" else 2
            changed = [word for word in set(a) ^ set(b)]
            assert len(changed) <= 2 * allowed, (q.full, biased.full)
    assert total > 1000
    assert abs(struck / total - share) < 4 * (share * (1 - share) / total) ** 0.5


def test_priors_of_other_claims_are_none_and_they_stay_clean(asked: list[tuple[Case, Question]]) -> None:
    rng = random.Random(3)
    seen = set()
    for _, q in asked:
        if q.kind in ("which", "knowledge", "given", "no_image", "zone") or q.slot in ("finding", "zone"):
            seen.add(q.kind)
            assert q.prior == "neutral" and text.contaminate(q, rng) == q
    assert {"which", "knowledge", "given", "no_image", "zone", "options"} <= seen


@pytest.mark.parametrize("kind", ["report", "caption"])
def test_reports_and_captions_carry_the_prior_claim_by_claim(kind: str) -> None:
    rng = random.Random(11)
    counts: dict[str, list[bool]] = defaultdict(list)
    for case, (q,) in text.stream(range(5000), kinds=(kind,), prevalence=0.4):
        told = read_report(text.contaminate(q, rng).full)
        for f in case.findings:
            biased = told.get(f.kind, ("no", None, None, None))
            if f.kind in ("pneumothorax", "consolidation"):
                counts["presence"].append(biased[0] == "no")
            else:
                assert biased[0] == "yes"
            if biased[0] == "no" or f.side is None:
                continue
            counts[f"side {f.side}"].append(biased[1] != f.side)
            counts[f"size {f.size}"].append(biased[3] != f.size)
            assert f.kind in ("pneumothorax", "pleural effusion") or biased[2] == f.zone
        assert all(finding_of(case, name) for name, told_claim in told.items() if told_claim[0] == "yes")
    shares = {"presence": 0.65, "side left": 0.7, "size large": 0.7, "side right": 0.0, "size small": 0.0}
    for name, share in shares.items():
        struck = counts[name]
        assert len(struck) > 1500
        assert abs(sum(struck) / len(struck) - share) <= 4 * (share * (1 - share) / len(struck)) ** 0.5, name


def test_a_presupposed_finding_is_denied_or_moved_by_the_prior(asked: list[tuple[Case, Question]]) -> None:
    rng = random.Random(5)
    denials = [
        denied(text.contaminate(q, rng).full)
        for _, q in asked
        if q.kind == "presupposed" and q.finding == "pneumothorax" and q.slots["presence"] == "yes"
    ]
    assert abs(sum(denials) / len(denials) - 0.65) < 4 * (0.65 * 0.35 / len(denials)) ** 0.5
    moved = [
        said(text.contaminate(q, rng).full, "side")
        for _, q in asked
        if q.kind == "presupposed" and q.finding == "nodule" and q.slots.get("side") == "left"
    ]
    assert abs(moved.count(["right"]) / len(moved) - 0.7) < 4 * (0.7 * 0.3 / len(moved)) ** 0.5


def test_boxes_are_the_mask_boxes_on_a_grid_of_64() -> None:
    for case, qs in text.stream(range(30), kinds=("box",), per_case=6):
        masks = dict(zip((f.kind for f in case.findings), render(case, 64).masks, strict=True))
        for q in qs:
            numbers = [int(n) for n in re.findall(r"\d+", q.full)]
            assert numbers == [min(63, c) for c in box(masks[str(q.finding)])] and str(numbers) == q.answer
            assert all(0 <= n <= 63 for n in numbers)


def test_two_image_questions_follow_from_both_cases() -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for (first, second), q in text.pair_stream(range(1500)):
        a, b = finding_of(first, q.finding), finding_of(second, q.finding)
        answers[q.kind][q.answer] += 1
        if q.kind == "compare":
            assert (
                q.answer == {(1, 0): "first", (0, 1): "second", (1, 1): "both", (0, 0): "neither"}[(bool(a), bool(b))]
            )
            assert [w for w in words(q.full) if w in ("first", "second", "both", "neither")] == [q.answer]
        elif q.kind == "resolved":
            assert a is not None and first.patient == second.patient and first != second
            assert q.answer == ("no" if b else "yes")
            assert (q.answer == "yes") == ("has resolved" in q.full or "no longer" in q.full)
        else:
            assert q.slot == "presence" or (b is not None and said(q.full, q.slot) == [getattr(b, q.slot)])
    assert set(answers) == set(PAIR_KINDS) and all(IMAGES[kind] == 2 for kind in answers)
    assert len(answers["compare"]) == 4 and min(answers["resolved"].values()) > 100


def test_all_text_is_ascii_and_short_enough_for_1024_positions(asked: list[tuple[Case, Question]]) -> None:
    pairs = [q for _, q in text.pair_stream(range(300))]
    for q in [q for _, q in asked] + pairs:
        assert (q.prompt + q.answer + q.full).isascii()
        assert len((q.prompt + q.full).split()) < 150


def test_streams_depend_on_seed_and_patient_alone() -> None:
    whole = dict(text.stream(range(40), kinds=TEXT_KINDS, contaminated=True, seed=3))
    part = dict(text.stream(range(30, 40), kinds=TEXT_KINDS, contaminated=True, seed=3))
    other = dict(text.stream(range(30, 40), kinds=TEXT_KINDS, contaminated=True, seed=4))
    assert all(whole[case] == qs for case, qs in part.items()) and part and part != other
    numpy_rng = [text.questions(sample_case(3), np.random.default_rng(0)) for _ in range(2)]
    assert numpy_rng[0] == numpy_rng[1]


@pytest.mark.parametrize(("per_case", "filled"), [(2, 0.8), (4, 0.8), (6, 0.6)])
def test_selection_is_level_and_repeats_no_claim(per_case: int, filled: float) -> None:
    rows = [(case, q) for case, qs in select(split_patients("align", 800), per_case=per_case) for q in qs]
    assert len(rows) > filled * 800 * per_case
    kinds = Counter(q.kind for _, q in rows)
    assert set(kinds) == set(CLAIM_KINDS) and max(kinds.values()) - min(kinds.values()) <= SLACK
    for kind in CLAIM_KINDS:
        values = Counter(q.slots[q.slot] for _, q in rows if q.kind == kind)
        assert max(values.values()) - min(values.values()) <= SLACK, kind
        answers = Counter((q.slots[q.slot], q.answer) for _, q in rows if q.kind == kind)
        assert max(answers.values()) - min(answers.values()) <= 2 * SLACK, kind
        findings = Counter(q.finding for _, q in rows if q.kind == kind)
        assert min(findings.values()) > 0.75 * max(findings.values()), kind
    claims = Counter((case.patient, q.kind, q.finding) for case, q in rows)
    prompts = Counter((case.patient, q.prompt) for case, q in rows)
    assert max(claims.values()) == max(prompts.values()) == 1


def test_splits_share_no_patient() -> None:
    blocks = [set(split_patients(split, 1000)) | {split_patients(split, 1, 999_999)[0]} for split in SPLITS]
    assert len(set.union(*blocks)) == sum(len(block) for block in blocks)
    with pytest.raises(UsageError, match="did you mean 'align'"):
        split_patients("aling", 3)
    with pytest.raises(UsageError, match="do not fit"):
        split_patients("dev", 2, 999_999)


def test_written_phantoms_match_their_cases_and_are_the_same_twice(tmp_path: Path) -> None:
    kinds = (*CLAIM_KINDS, "report", "given", "box")
    runs = []
    for name in ("a", "b"):
        folder = tmp_path / name
        patients = split_patients("dev", 30, 5)
        runs.append(write_phantoms(folder, split="dev", patients=patients, px=32, per_case=9, kinds=kinds))
        write_table(folder / "examples.parquet", runs[-1], Example)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*") if p.is_file())
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    assert runs[0] == runs[1] == read_table(tmp_path / "a" / "examples.parquet", Example)
    assert {e.kind for e in runs[0]} == set(kinds) and len({e.id for e in runs[0]}) == len(runs[0])
    for e in runs[0]:
        check_example(tmp_path / "a", e)
    named = {p for e in runs[0] for p in [*e.images, e.counterfactual, *(r.mask for r in e.regions)] if p}
    assert named == {str(f) for f in files if f.suffix == ".png"}


def check_example(folder: Path, e: Example) -> None:
    patient = int(e.patient_id.removeprefix("phantom-"))
    case = sample_case(patient)
    drawn = render(case, 32)
    index = {f.kind: i for i, f in enumerate(case.findings)}
    assert (e.split, e.modality, e.source) == ("dev", "CXR phantom", "phantom-1") and e.answer and e.full
    if e.kind == "given":
        assert not e.images and not e.regions and not e.counterfactual
        return
    assert np.array_equal(np.asarray(Image.open(folder / e.images[0])), drawn.image)
    present = e.finding in index
    assert [r.label for r in e.regions] == (list(index) if e.task == "report" else [e.finding] * present)
    for region in e.regions:
        mask = drawn.masks[index[region.label]]
        assert np.array_equal(np.asarray(Image.open(folder / str(region.mask))) > 0, mask)
        assert region.box == [float(c) for c in box(mask)]
    assert bool(e.counterfactual) == present
    if present:
        without = render(counterfactual(case, index[e.finding]), 32).image
        assert np.array_equal(np.asarray(Image.open(folder / e.counterfactual)), without)


def test_the_writer_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    good = split_patients("test", 2)
    with pytest.raises(UsageError, match="are outside"):
        write_phantoms(tmp_path, split="align", patients=good)
    with pytest.raises(UsageError, match="did you mean 'side'"):
        write_phantoms(tmp_path, split="test", patients=good, kinds=("sidee",))
    with pytest.raises(UsageError, match="at least one"):
        write_phantoms(tmp_path, split="test", patients=good, per_case=0)
    assert list(tmp_path.iterdir()) == []


def test_the_documentation_lists_every_kind_with_its_number_of_images() -> None:
    page = (Path(__file__).parents[2] / "docs" / "phantom-text.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d) \|", page, flags=re.MULTILINE)
    assert {kind: int(images) for kind, images in rows} == IMAGES
