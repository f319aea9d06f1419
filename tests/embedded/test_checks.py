"""The checks of phantom-2 on made-up numbers and a tiny model: margins, shifts, right answers of skills."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import teacher
import torch
from checks import (
    Margin,
    answer_margins,
    balanced,
    best_shift,
    five_checks,
    printed,
    recovered,
    segment_logps,
    shifted,
)
from corpus import Corpus
from examine import is_right
from lessons import Lessons, Scenes, load_scenes, one_word_rows
from model import build_model
from parts import Build, Plan, Size
from pretrain import WORDS, patch_words
from rows import RowBuilder, collate
from tokenizer import train_tokenizer
from tune import Patches, answer_loss, odds_loss

from clinalign.data.phantom.claims import answer, claim_questions
from clinalign.data.phantom.priors import PRIORS, UNSEEN
from clinalign.data.phantom.scenes import sample_scenes
from clinalign.data.phantom.skills import SKILLS, lessons
from clinalign.errors import UsageError


def margins(scores: list[float], truths: list[bool], group: str = "a", text: str = "a", rung: int = 0) -> list[Margin]:
    return [Margin((group,), (text,), s, t, rung) for s, t in zip(scores, truths, strict=True)]


def test_best_shift_by_hand() -> None:
    """Scores 1, 2, 3 with truths no, no, yes: only signs flipped under a border between 2 and 3 are all right, -2.5."""
    assert best_shift(np.array([3.0, 1.0, 2.0]), np.array([True, False, False])) == -2.5
    assert best_shift(np.array([-1.0, 1.0]), np.array([False, True])) == 0.0
    assert best_shift(np.array([-3.0, -1.0]), np.array([True, True])) == 4.0


def test_best_shift_equals_trying_every_border() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores, truths = rng.normal(size=9), rng.random(9) < 0.5
        borders = [0.0, *(-(scores[:, None] + scores[None, :]).ravel() / 2), *(1 - scores), *(-1 - scores)]
        naive = max(((scores + border > 0) == truths).sum() for border in borders)
        assert ((scores + best_shift(scores, truths) > 0) == truths).sum() == naive


def test_a_threshold_prior_is_won_back_by_the_class_and_a_blind_one_is_not() -> None:
    rng = np.random.default_rng(1)
    truths = rng.random(800) < 0.5
    threshold = margins(list(truths * 2.0 - 4.0 + rng.normal(0, 0.3, 800)), list(truths))
    blind = margins(list(-4.0 + rng.normal(0, 1, 800)), list(truths))
    assert np.mean([m.right for m in threshold]) < 0.6
    assert np.mean(shifted(threshold[:400], threshold[400:], "group")) > 0.98
    assert np.mean(shifted(blind[:400], blind[400:], "group")) < 0.56


def test_a_shift_by_text_sees_what_the_class_does_not() -> None:
    """Two texts of one class, whose priors point opposite ways: one number a class cannot turn both, one a text can."""
    one = margins([-1.0, -3.0] * 20, [True, False] * 20, text="left")
    two = margins([3.0, 1.0] * 20, [True, False] * 20, text="right")
    both = one + two
    assert np.mean(shifted(both, both, "group")) == 0.75
    assert np.mean(shifted(both, both, "text")) == 1.0
    assert shifted(one, margins([-1.0], [True], text="unseen"), "text") == [False]


def test_five_checks_by_hand() -> None:
    """Base 2 of 4, ceiling 4 of 4; margins 2 of 4 right, a shift of 2 turns one more: (3/4 - 2/4) / (1/2) = 1/2."""
    reader = {"0": 0.97, "1": 0.80, "2": 0.7, "3": 0.6, "4": 0.5}
    right = {"base": np.array([1, 1, 0, 0, 0.0]), "ceiling": np.array([1, 1, 1, 1, 0.0])}
    rungs = np.array([0, 0, 0, 0, 1])
    test = margins([-3.0, -3.0, -1.0, -5.0], [False, False, True, True]) + margins([9.0], [False], rung=1)
    checks = five_checks(reader, right, test, test, rungs)
    assert checks == {
        "visible": [0], "base": 0.5, "ceiling": 1.0,
        "class_shift_recovers": 0.5, "text_shift_recovers": 0.5, "hold": False,
    }  # fmt: skip
    lines = printed(checks).splitlines()
    assert [line[1] for line in lines] == ["x", "x", "x", " ", "x"]
    assert five_checks(dict.fromkeys(reader, 0.6), right, test, test, rungs) == {"visible": [], "hold": False}
    assert "none" in printed({"visible": [], "hold": False})


def test_recovered_and_balanced_by_hand() -> None:
    assert recovered(0.6, 0.7, 1.0) == pytest.approx(0.25)
    guesses = np.array([True, True, False, True])
    assert balanced(guesses, np.array([1, 1, 0, 0], np.int8)) == 0.75
    assert balanced(guesses, np.array([1, 1, 0, -1], np.int8)) == 1.0
    assert np.isnan(balanced(guesses, np.array([1, 1, 1, 1], np.int8)))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenes, RowBuilder, torch.nn.Module]:
    scenes = load_scenes("dev", 10, tmp_path_factory.mktemp("scenes"))
    rng = random.Random(0)
    texts = [f"{q.prompt} {q.full}" for scene in scenes.corpus.cases for q in claim_questions(scene, rng)]
    tokenizer = train_tokenizer(texts, 420)
    return scenes, RowBuilder(tokenizer), build_model(tokenizer, 0).eval()


def test_margins_of_packed_answers_equal_those_scored_alone(small: tuple[Scenes, RowBuilder, torch.nn.Module]) -> None:
    scenes, builder, model = small
    rng = random.Random(4)
    asked = [(scene, claim_questions(scene, rng)[:3]) for scene in scenes.corpus.cases[:3]]
    packed = answer_margins(model, builder, asked, scenes.corpus)
    images = torch.from_numpy(scenes.corpus.images)
    for (scene, drawn), found in zip(asked, packed, strict=True):
        index = scenes.corpus.cases.index(scene)
        for question, margin in zip(drawn, found, strict=True):
            sums = []
            for name in ("truth", "counter"):
                value = answer(question, question.slots[name])
                row = builder.row([index], [replace(question, full=value)])
                with torch.no_grad():
                    sums.append(float(segment_logps(model, [row], images)[0][0]))
            assert margin is not None
            assert margin.score == pytest.approx((sums[0] - sums[1]) * (1 if margin.truth else -1), abs=1e-3)


def test_lessons_hold_claims_reports_and_every_skill(small: tuple[Scenes, RowBuilder, torch.nn.Module]) -> None:
    scenes, builder, _ = small
    drawn = Lessons(scenes, builder, priors=True, seed=0, skills=tuple(SKILLS))
    rows = drawn.rows(list(range(10)) * 2)
    assert len(rows) > 30 and max(i for row in rows for i in row.images) == len(drawn.images()) - 1
    again = Lessons(scenes, builder, priors=True, seed=0, skills=tuple(SKILLS)).rows(list(range(10)) * 2)
    assert [row.segments for row in rows] == [row.segments for row in again]
    words = one_word_rows(scenes, builder, range(4), 0)
    assert all(len(segment.answer) <= 8 for row in words for segment in row.segments)


def test_rows_with_the_priors_hold_both_answers_and_the_odds_that_text_gives(
    small: tuple[Scenes, RowBuilder, torch.nn.Module],
) -> None:
    """Loss: the mean over tokens weighted by how often text has them, plus the mean over claims of the cross-entropy of
    the log-odds, s = log p(truth) - log p(counter): -(p log sigma(s) + (1 - p) log sigma(-s))."""
    scenes, builder, model = small
    rows = Lessons(scenes, builder, priors=True, seed=0, skills=()).rows(list(range(3)))
    assert all(row.odds and len(row.segments) > 2 * len(row.odds) for row in rows)
    assert {round(p, 3) for row in rows for p in row.odds} <= {
        round(1 - UNSEEN + UNSEEN * p, 3) for prior in PRIORS.values() for p in (prior.rate, 1 - prior.rate)
    }
    images = torch.from_numpy(scenes.corpus.images)
    with torch.no_grad():
        loss = answer_loss(model, collate(rows, model.config.pad_token_id), images)
        sums = segment_logps(model, rows, images)
    tokens = weighted = 0.0
    claims = []
    for row, logps in zip(rows, sums, strict=True):
        assert all(row.segments[2 * k].prompt == row.segments[2 * k + 1].prompt for k in range(len(row.odds)))
        shares = [share for p in row.odds for share in (p, 1 - p)] + [1.0] * (len(row.segments) - 2 * len(row.odds))
        for segment, share, logp in zip(row.segments, shares, logps, strict=True):
            tokens, weighted = tokens + share * len(segment.answer), weighted - share * logp
        for k, p in enumerate(row.odds):
            s = logps[2 * k] - logps[2 * k + 1]
            claims.append(p * np.log1p(np.exp(-s)) + (1 - p) * np.log1p(np.exp(s)))
    assert loss.item() == pytest.approx(weighted / tokens + float(np.mean(claims)), rel=1e-4)


def test_odds_loss_by_hand() -> None:
    """Two answers of log-probability -1 and -3 (s = 2) where text has the first in .9: .9 log(1 + e^-2) + .1 log(1 +
    e^2) = .11423 + .21269."""
    from types import SimpleNamespace

    batch = SimpleNamespace(answers=torch.tensor([0, 0, 1]), pairs=torch.tensor([0]), odds=torch.tensor([0.9]))
    losses = torch.tensor([0.4, 0.6, 3.0], requires_grad=True)
    loss = odds_loss(losses, batch.answers, batch)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(0.32693, abs=1e-5)
    loss.backward()
    assert losses.grad is not None
    pull = 1 / (1 + np.exp(-2.0)) - 0.9  # d loss / d s; s falls with the first answer's losses
    assert losses.grad.numpy() == pytest.approx([-pull, -pull, pull], abs=1e-6)


def test_patches_are_read_where_the_picture_is_of_the_corpus(small: tuple[Scenes, RowBuilder, torch.nn.Module]) -> None:
    scenes, _, _ = small
    words = patch_words(scenes.corpus, np.arange(10))
    for index, scene in enumerate(scenes.corpus.cases):
        told = {word for finding in scene.findings for word in (finding.kind, finding.side, finding.size, finding.zone)}
        assert {WORDS[column] for column in words[index].amax(0).nonzero()[:, 0]} == told - {None}
    head = Patches(scenes.corpus)
    tokens = torch.randn(3, 64, 192)
    alone = head.loss(tokens[:2], torch.tensor([1, 4]))
    assert head.loss(tokens, torch.tensor([1, 4, 10])).item() == pytest.approx(alone.item())  # 10 is a lesson's own
    assert head.loss(tokens, torch.tensor([10, 11, 12])).item() == 0


def test_examination_reads_every_right_answer_as_right_and_the_counter_as_wrong() -> None:
    rng = random.Random(2)
    for scene in sample_scenes("dev", 25):
        for question in claim_questions(scene, rng):
            assert is_right(question, question.full, True), question
            assert not is_right(question, answer(question, question.slots["counter"]), True), question
            assert not is_right(question, question.full, False)
    for name in SKILLS:
        for lesson in lessons(list(sample_scenes("dev", 6)), name, rng):
            for question in lesson.questions:
                assert is_right(question, question.full, True) and not is_right(question, "Nothing.", True)


def test_attention_loss_by_hand() -> None:
    """Even attention on 64 patches, cover on one: -log(1/64); all attention there: 0."""
    cover = torch.zeros(1, 64)
    cover[0, 5] = 1.0
    even, all_there = torch.full((1, 2, 65, 65), 1 / 65), torch.zeros(1, 2, 65, 65)
    all_there[:, :, 0, 6] = 1.0
    assert teacher.attention_loss(even, cover).item() == pytest.approx(np.log(64), rel=1e-4)
    assert teacher.attention_loss(all_there, cover).item() == pytest.approx(0.0, abs=1e-6)
    assert teacher.attention_loss(even, torch.zeros(1, 64)).item() == 0.0


def test_a_taught_teacher_s_loss_and_gradient_reach_its_attention(
    small: tuple[Scenes, RowBuilder, torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"BATCH": 4, "WIDTH": 16, "LAYERS": 1, "HEADS": 2, "JOINT": 8}.items():
        monkeypatch.setattr(teacher, name, value)
    corpus: Corpus = small[0].corpus
    one, tokenizer = teacher.train(corpus, 0, steps=3, attend=1.0)
    other, _ = teacher.train(corpus, 0, steps=3, attend=1.0)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    plain, _ = teacher.train(corpus, 0, steps=3)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), plain.parameters(), strict=True))
    assert teacher.measure(one, tokenizer, corpus)["patients"] == 10


def test_a_finished_part_is_kept_and_a_folder_takes_one_plan(tmp_path: Path) -> None:
    plan = Plan(0, 0, "", Size(scenes=4))
    build = Build(tmp_path / "out", tmp_path / "work", plan)
    model, runs = torch.nn.Linear(2, 2), []

    def train() -> str:
        runs.append(1)
        with torch.no_grad():
            model.weight.add_(1.0)
        return "done"

    build.part("clean", model, train)  # type: ignore[arg-type]
    after = model.weight.clone()
    torch.nn.init.zeros_(model.weight)
    Build(tmp_path / "out", tmp_path / "work", plan).part("clean", model, train)  # type: ignore[arg-type]
    assert len(runs) == 1 and torch.equal(model.weight, after)
    with pytest.raises(UsageError, match="other settings"):
        Build(tmp_path / "out", tmp_path / "work", Plan(1, 0, "", Size(scenes=4)))
