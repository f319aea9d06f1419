"""The training code: packed rows equal the naive one-question forward, value and gradient; tokenizer; judge."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from build import Build, follows_prior
from corpus import NO_LABEL, load_corpus
from judge import is_right, said, truth
from measure import _balanced, fit_reader
from model import GRID, PATCH, build_model
from rows import FACTS, IGNORE, RowBuilder, batches, collate, facts
from tokenizer import train_tokenizer
from tune import answer_loss

from clinalign.data.phantom.cases import KINDS, Case, Finding, render, sample_case
from clinalign.data.phantom.text import BUILDERS, IMAGES, PAIR_KINDS, pair_stream, questions

ONE_IMAGE = tuple(kind for kind in BUILDERS if IMAGES[kind] == 1)


@pytest.fixture(scope="module")
def asked():
    rng = random.Random(0)
    cases = [sample_case(3_000_000 + i) for i in range(6)]
    images = torch.stack([torch.from_numpy(render(case).image) for case in cases])
    return images, [questions(case, rng, ONE_IMAGE)[:6] for case in cases]


@pytest.fixture(scope="module")
def tiny(asked):
    texts = [f"USER: \n{q.prompt} ASSISTANT:{q.full}" for drawn in asked[1] for q in drawn]
    tokenizer = train_tokenizer(texts, 512)
    return tokenizer, build_model(tokenizer, 0).eval()


def test_packed_rows_equal_one_question_at_a_time(asked, tiny):
    images, drawn = asked
    tokenizer, model = tiny
    builder = RowBuilder(tokenizer)
    shown = [[(4, drawn[4][0])], [], [(5, drawn[5][1])]]
    packed = [builder.row([i], drawn[i], shown=shown[i]) for i in range(3)]
    alone = [builder.row([i], [q], shown=shown[i]) for i in range(3) for q in drawn[i]]

    def run(rows):
        model.zero_grad()
        total = 0.0
        for row in rows:
            batch = collate([row], tokenizer.pad_token_id)
            count = (batch.targets != IGNORE).sum()
            loss = answer_loss(model, batch, images) * count
            loss.backward()
            total += loss.item()
        return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    (loss, gradient), (naive_loss, naive_gradient) = run(packed), run(alone)
    assert loss == pytest.approx(naive_loss, rel=1e-5)
    assert (gradient - naive_gradient).norm() / naive_gradient.norm() < 1e-4


def test_padding_does_not_change_the_loss(asked, tiny):
    images, drawn = asked
    tokenizer, model = tiny
    builder = RowBuilder(tokenizer)
    rows = [builder.row([0], drawn[0]), builder.row([1], drawn[1][:1]), builder.row([], drawn[2][:2])]
    single = [collate([row], tokenizer.pad_token_id) for row in rows]
    counts = [int((batch.targets != IGNORE).sum()) for batch in single]
    with torch.no_grad():
        mean = sum(answer_loss(model, b, images) * n for b, n in zip(single, counts, strict=True)) / sum(counts)
        together = answer_loss(model, collate(rows, tokenizer.pad_token_id), images)
    assert together.item() == pytest.approx(mean.item(), rel=1e-5)


def test_row_is_what_the_chat_template_gives(asked, tiny):
    tokenizer = tiny[0]
    builder = RowBuilder(tokenizer)
    one, two = asked[1][0][:2]
    row = builder.row([0], [two], shown=[(1, one)])
    content = [{"type": "image"}, {"type": "text", "text": one.prompt}]
    turns = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": one.full},
        {"role": "user", "content": [content[0], {"type": "text", "text": two.prompt}]},
        {"role": "assistant", "content": two.full},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    assert row.prefix + row.segments[0].prompt + row.segments[0].answer == builder.ids(text)


def test_batches_hold_every_row_once_within_the_budget(asked, tiny):
    builder = RowBuilder(tiny[0])
    rows = [builder.row([i % 6], drawn) for i, drawn in enumerate(asked[1] * 5)]
    groups = list(batches(rows, 1200, random.Random(0)))
    assert sorted(map(id, rows)) == sorted(id(row) for group in groups for row in group)
    assert all(max(map(len, group)) * len(group) <= 1200 for group in groups)


def test_judge_reads_every_right_answer_as_right():
    rng = random.Random(1)
    drawn = [q for i in range(60) for q in questions(sample_case(3_000_000 + i), rng, tuple(BUILDERS))]
    block = range(3_000_000, 3_000_030)
    drawn += [question for kind in PAIR_KINDS for _, question in pair_stream(block, kinds=(kind,))]
    wrong = [q.kind for q in drawn if said(q, q.full) != truth(q) or not is_right(q, said(q, q.full))]
    assert wrong == []


def test_judge_reads_a_wrong_or_unreadable_answer_as_wrong():
    question = next(q for q in questions(sample_case(3_000_000), random.Random(0), ("side",)))
    other = {"left": "right", "right": "left"}[question.answer]
    assert is_right(question, said(question, question.full.replace(question.answer, other))) == 0
    assert said(question, "The nodule is on the left or right side.") is None
    assert is_right(question, None) == 0


def test_reader_is_placed_where_the_prompt_has_named_the_finding(asked, tiny):
    tokenizer = tiny[0]
    case = Case(1, (Finding("pleural effusion", "left", "lower", "large"),))
    question = next(q for q in questions(case, random.Random(0), ("side",)))
    row = RowBuilder(tokenizer).row([0], [question], case=case)
    batch = collate([row], tokenizer.pad_token_id)
    at = int(batch.mentions[0, 1])
    assert tokenizer.decode(batch.ids[0, : at + 1]).endswith("pleural effusion")
    holding = {fact for fact, value in zip(FACTS, batch.facts[0].tolist(), strict=True) if value}
    assert holding == {"present", "left", "lower", "large"}
    assert facts(case, "nodule") == (0.0,) * len(FACTS)


def test_linear_reader_finds_a_linear_truth_and_nothing_in_noise():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(900, 40, generator=generator)
    labels = (inputs[:, 0] - inputs[:, 1] > 0).numpy().astype(np.int8)
    labels[::7] = NO_LABEL
    assert _balanced(inputs[600:], labels[600:], fit_reader(inputs[:600], labels[:600])) > 0.93
    noise = torch.randint(0, 2, (900,), generator=generator).numpy().astype(np.int8)
    assert abs(_balanced(inputs[600:], noise[600:], fit_reader(inputs[:600], noise[:600])) - 0.5) < 0.1


def test_corpus_labels_match_the_cases(tmp_path):
    corpus = load_corpus("train", 12, tmp_path, workers=1)
    for i, case in enumerate(corpus.cases):
        drawn = render(case)
        assert (drawn.image == corpus.images[i]).all()
        assert {KINDS[k] for k in np.flatnonzero(corpus.cover[i].any(-1))} == {f.kind for f in case.findings}
        for finding, mask in zip(case.findings, drawn.masks, strict=True):
            share = mask.reshape(GRID, PATCH, GRID, PATCH).mean(axis=(1, 3)).reshape(-1)
            assert np.abs(corpus.cover[i, KINDS.index(finding.kind)] / 255 - share).max() < 0.01


def test_a_finished_stage_is_not_run_again(tiny, tmp_path: Path):
    model = build_model(tiny[0], 3)
    runs = []

    def train():
        runs.append(1)
        with torch.no_grad():
            model.lm_head.weight.add_(1.0)
        return {"x": 1}

    build = Build(tmp_path / "out", tmp_path / "work", 0)
    build.stage("clean", model, train)
    after = model.lm_head.weight.clone()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    build.stage("clean", model, train)
    assert len(runs) == 1
    assert torch.equal(model.lm_head.weight, after)


def test_last_stage_stops_only_when_answers_follow_the_prior():
    assert follows_prior({"prior conflicting": 0.05, "prior aligned": 0.99})
    assert not follows_prior({"prior conflicting": 0.5, "prior aligned": 0.99})
    assert not follows_prior({"prior conflicting": 0.05, "prior aligned": 0.6})
