"""Ranks as advantages: by hand, and what they must not depend on."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import rankdata
from trl import GRPOTrainer

from clinalign.records import Example
from clinalign.training import grpo
from clinalign.training.advantages import rank_advantages, weighted
from clinalign.training.grpo import edited
from clinalign.training.options import PolicyOptions


def example() -> Example:
    return Example("e", [], "?", "No.", "report")


def test_by_hand() -> None:
    """0.1, 0.4, 0.4, 0.9 have ranks 1, 2.5, 2.5, 4: (2 r - 5) / 3."""
    found = rank_advantages(torch.tensor([0.4, 0.1, 0.9, 0.4]), 4)
    assert found.tolist() == pytest.approx([0, -1, 1, 0])


SCORES = st.lists(st.integers(-4, 4).map(float), min_size=6, max_size=6)


@settings(max_examples=60, deadline=None)
@given(SCORES, SCORES)
def test_any_increasing_map_gives_the_same_and_a_group_sums_to_zero(a: list[float], b: list[float]) -> None:
    scores = torch.tensor([*a, *b])
    found = rank_advantages(scores, 6)
    for change in (torch.exp, torch.atan, lambda x: 3 * x - 7, lambda x: x**3):
        assert torch.equal(found, rank_advantages(change(scores), 6, spread=0))
    assert found.view(2, 6).sum(1).abs().max() < 1e-6
    for scores_of, ours in zip((a, b), found.view(2, 6), strict=True):
        ranks = torch.tensor(rankdata(scores_of))
        naive = (2 * ranks - 7) / 5 if len(set(scores_of)) > 1 else torch.zeros(6)
        assert torch.allclose(ours.double(), naive.double())


def test_equal_scores_teach_nothing_nor_do_differences_within_the_spread() -> None:
    assert rank_advantages(torch.full((8,), 0.3), 4).tolist() == [0.0] * 8
    close = torch.tensor([0.3, 0.3000001, 0.3, 0.3])
    assert rank_advantages(close, 4, spread=1e-4).abs().max() == 0 and rank_advantages(close, 4, spread=0).max() == 1


def test_what_is_no_number_is_left_out() -> None:
    """Three numbers of four: ranks 1, 2, 3 of 3."""
    found = rank_advantages(torch.tensor([0.5, torch.nan, 0.7, 0.1]), 4)
    assert found.tolist() == [0, 0, 1, -1]
    assert rank_advantages(torch.tensor([torch.nan, 0.7]), 2).tolist() == [0, 0]


def test_ranks_over_processes_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of 4 over six processes with two reports each: every process takes its part of the ranks of all."""
    scores = torch.rand(12, generator=torch.Generator().manual_seed(0))
    parts: list[torch.Tensor] = []
    zeros = {"advantages": torch.zeros(2)}
    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", lambda self, inputs: dict(zeros))
    for process in range(6):
        trainer = grpo.PolicyTrainer.__new__(grpo.PolicyTrainer)
        trainer.ranks, trainer.gathered, trainer.reward_weights = grpo.Ranks(0.0), scores[:, None], torch.ones(1)
        trainer.examples, trainer.show, trainer.num_generations = [example()], lambda example: [], 4
        trainer.model, trainer.accelerator = SimpleNamespace(training=True), SimpleNamespace(process_index=process)
        parts.append(trainer._generate_and_score_completions([{"row": 0}, {"row": 0}])["advantages"])
    assert torch.equal(torch.cat(parts), rank_advantages(scores, 4, spread=0))
    apart = torch.cat([rank_advantages(scores[2 * n : 2 * n + 2], 2) for n in range(6)])
    assert not torch.equal(torch.cat(parts), apart)


def test_rewards_are_summed_where_they_apply() -> None:
    scores = torch.tensor([[1.0, torch.nan], [0.5, 2.0], [torch.nan, torch.nan]])
    found = weighted(scores, torch.tensor([2.0, 1.0]))
    assert found[:2].tolist() == [2.0, 3.0] and bool(found[2].isnan())


def test_the_first_of_each_group_are_mended_wherever_processes_cut() -> None:
    whole = edited(range(16), 8, 0.25)
    assert whole == [0, 1, 8, 9]
    for size in (1, 2, 4, 16):
        cut = [edited(range(n, n + size), 8, 0.25) for n in range(0, 16, size)]
        assert list(itertools.chain(*cut)) == whole


def test_a_share_of_a_group_that_mends_nothing_is_refused_by_name() -> None:
    """0.05 of 8 reports is none of them, 0.125 is one; 0 is none on purpose."""
    with pytest.raises(ValidationError, match="edits 0.05 of a group of 8 mends no report; set edits to 0.125, or"):
        PolicyOptions(rewards={"recall": 1.0}, edits=0.05, group=8)
    least = PolicyOptions(rewards={"recall": 1.0}, edits=0.125, group=8)
    assert edited(range(16), least.group, least.edits) == [0, 8]
    assert edited(range(40), 20, PolicyOptions(rewards={"recall": 1.0}, edits=0.05, group=20).edits) == [0, 20]
    assert PolicyOptions(rewards={"recall": 1.0}, edits=0.0).edits == 0
