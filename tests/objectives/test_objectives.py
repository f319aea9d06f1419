"""Each loss against numbers worked by hand, at initialisation, and in the sign of its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from naive import token_kl

from clinalign.objectives import METHODS, LossCoefficients, SequenceLogps, anchored
from clinalign.objectives.dpo import margin, preference

LOG2 = math.log(2)


def sums(**values: float) -> SequenceLogps:
    out = SequenceLogps.zeros(1)
    for name, value in values.items():
        setattr(out, name, torch.tensor([float(value)], requires_grad=True))
    return out


def run(name: str, given: SequenceLogps, **weights: float):
    method = METHODS[name]
    w = method.coefficients(LossCoefficients(**weights))
    return anchored(method.loss(given, w), given, w)


AROUND_FIREMPO = (
    "firempo", "no_visual", "no_fkl", "no_rkl", "no_kl", "v1", "v2", "d1", "d2", "d3", "rrpo", "rrpo_authors",
    "mask_dpo", "mdpo", "dpo",
)  # fmt: skip


@pytest.mark.parametrize("name", AROUND_FIREMPO)
def test_at_initialisation_every_sigmoid_term_is_log_2_and_every_kl_zero(name: str) -> None:
    values = {side: -3.0 - i for i, side in enumerate(("chosen", "rejected", "corrupt_chosen", "corrupt_rejected"))}
    reference = {
        f"ref_{k}" if "corrupt" not in k else k.replace("corrupt_", "corrupt_ref_"): v for k, v in values.items()
    }
    terms = run(name, sums(**values, **reference, has_corrupt=1.0), beta=0.1, alpha=0.01, gamma=0.1)
    assert terms.parts["rank"].item() == pytest.approx(LOG2, abs=1e-7)
    if "visual" in terms.parts:
        assert terms.parts["visual"].item() == pytest.approx(METHODS[name].fixed.get("gamma", 0.1) * LOG2, abs=1e-7)
    assert terms.parts.get("kl", torch.zeros(1)).item() == 0


def test_firempo_by_hand() -> None:
    """beta 0.5, gamma 0.2, alpha 0.1, lam 0.25.

    margin  = 0.5 * [(-2 - -5) - (-3 - -4)]         = 0.5 * (3 - 1)  = 1
    flipped = 0.5 * [(-6 - -2) - (-4 - -4)]         = 0.5 * -4       = -2
    rank    = log(1 + e^-1)                                          = 0.3132617
    visual  = 0.2 * log(1 + e^2)                    = 0.2 * 2.126928 = 0.4253856
    kl      = 0.1 * (0.25 * 0.8 + 0.75 * 0.4)       = 0.1 * 0.5      = 0.05
    """
    given = sums(
        chosen=-2, rejected=-5, ref_chosen=-3, ref_rejected=-4,
        corrupt_chosen=-2, corrupt_rejected=-6, corrupt_ref_chosen=-4, corrupt_ref_rejected=-4,
        has_corrupt=1, kl_forward=0.8, kl_reverse=0.4,
    )  # fmt: skip
    terms = run("firempo", given, beta=0.5, gamma=0.2, alpha=0.1, lam=0.25)
    assert terms.margin.item() == pytest.approx(1)
    assert terms.visual_margin.item() == pytest.approx(-2)
    assert terms.parts["rank"].item() == pytest.approx(0.3132617, abs=1e-6)
    assert terms.parts["visual"].item() == pytest.approx(0.4253856, abs=1e-6)
    assert terms.parts["kl"].item() == pytest.approx(0.05)
    assert terms.loss.item() == pytest.approx(0.7886473, abs=1e-6)


@pytest.mark.parametrize(
    "name, expected",
    [
        # margin 1 (as above): rank 0.3132617; the KL is 0.1 * 0.8 forward, 0.1 * 0.4 reverse.
        ("no_visual", 0.3132617 + 0.05),
        ("no_fkl", 0.3132617 + 0.04),
        ("no_rkl", 0.3132617 + 0.08),
        ("no_kl", 0.3132617),
        ("rrpo", 0.3132617 + 0.08),
        ("rrpo_authors", 0.3132617 + 0.08),
        ("mask_dpo", 0.3132617),
        # the data ablations are FiRe-MPO's loss on other tokens or pairs: rank + visual + kl as above
        *((name, 0.7886473) for name in ("d1", "d2", "d3")),
        ("dpo", 0.3132617),
        # mdpo: gamma is 1; the anchor 0.5 * (-2 - -3) = 0.5 -> log(1 + e^-0.5) = 0.4740770
        ("mdpo", 0.3132617 + 0.9740770 + 0.4740770),
        # v1: 0.5 * [(-2 - -2) - (-3 - -4)] = -0.5 -> 0.9740770; v2: 0.5 * [(-2 - -6) - (-3 - -4)] = 1.5 -> 0.2014133
        ("v1", 0.3132617 + 0.2 * 0.9740770 + 0.05),
        ("v2", 0.3132617 + 0.2 * 0.2014133 + 0.05),
        ("sft", 0.7),
    ],
)
def test_methods_by_hand(name: str, expected: float) -> None:
    given = sums(
        chosen=-2, rejected=-5, ref_chosen=-3, ref_rejected=-4,
        corrupt_chosen=-2, corrupt_rejected=-6, corrupt_ref_chosen=-4, corrupt_ref_rejected=-4,
        has_corrupt=1, kl_forward=0.8, kl_reverse=0.4, nll=0.7,
    )  # fmt: skip
    assert run(name, given, beta=0.5, gamma=0.2, alpha=0.1, lam=0.25).loss.item() == pytest.approx(expected, abs=1e-6)


def test_token_kl_by_hand() -> None:
    """p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2), rows of logits with different offsets.

    KL(q || p) = 1/4 ln(1/2) + 0 + 1/2 ln 2 = 1/4 ln 2; KL(p || q) = 1/2 ln 2 + 0 + 1/4 ln(1/2) = 1/4 ln 2
    And p = (1/2, 1/2), q = (1/4, 3/4): KL(q || p) = 1/4 ln(1/2) + 3/4 ln(3/2) = 0.1308121,
    KL(p || q) = 1/2 ln 2 + 1/2 ln(2/3) = 0.1438410.
    """
    forward, reverse = token_kl(
        torch.tensor([[0.5, 0.25, 0.25]]).log() + 3, torch.tensor([[0.25, 0.25, 0.5]]).log() - 1
    )
    assert forward.item() == pytest.approx(LOG2 / 4)
    assert reverse.item() == pytest.approx(LOG2 / 4)
    forward, reverse = token_kl(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log())
    assert forward.item() == pytest.approx(0.1308121, abs=1e-6)
    assert reverse.item() == pytest.approx(0.1438410, abs=1e-6)


def test_gradient_signs() -> None:
    """Chosen rises, rejected falls; under the corrupted image it is the other way round."""
    given = sums(chosen=-2, rejected=-2.5, corrupt_chosen=-3, corrupt_rejected=-4, has_corrupt=1)
    run("firempo", given, beta=0.3, gamma=0.5, alpha=0.0).loss.sum().backward()
    assert given.chosen.grad < 0 < given.rejected.grad
    assert given.corrupt_rejected.grad < 0 < given.corrupt_chosen.grad
    given = sums(nll=2.0)
    run("sft", given).loss.sum().backward()
    assert given.nll.grad > 0


def test_a_record_without_corrupted_image_has_no_visual_term() -> None:
    given = sums(chosen=-2, corrupt_chosen=-9, has_corrupt=0)
    terms = run("firempo", given, gamma=5.0)
    assert terms.parts["visual"].item() == 0


def test_the_anchor_is_added_once_at_its_weight() -> None:
    given = sums(nll=2.0)
    assert run("dpo", given).loss.item() == pytest.approx(LOG2)
    assert METHODS["dpo"].coefficients(LossCoefficients(nll=0.25)).nll == 0.25
    assert run("dpo", given, nll=0.25).loss.item() == pytest.approx(LOG2 + 0.5)
    assert run("sft", given, nll=0.25).loss.item() == pytest.approx(2.0)


def test_firempo_without_its_additions_is_dpo() -> None:
    """gamma = alpha = 0 and every token counted: the sigmoid loss of DPO on the same log-probabilities."""
    generator = torch.Generator().manual_seed(0)
    chosen, rejected, ref_chosen, ref_rejected = torch.randn(4, 6, generator=generator) - 5
    given = SequenceLogps.zeros(6)
    given.chosen, given.rejected, given.ref_chosen, given.ref_rejected = chosen, rejected, ref_chosen, ref_rejected
    ours = METHODS["firempo"].loss(given, LossCoefficients(beta=0.1, gamma=0, alpha=0)).loss
    delta = (chosen - ref_chosen) - (rejected - ref_rejected)
    expected = -torch.nn.functional.logsigmoid(0.1 * delta)
    assert torch.allclose(ours, expected, atol=1e-6)
    assert torch.allclose(METHODS["dpo"].loss(given, LossCoefficients(beta=0.1)).loss, expected, atol=1e-6)


def test_large_margins_stay_finite() -> None:
    gap = margin(torch.tensor([0.0]), torch.tensor([2000.0]), torch.zeros(1), torch.zeros(1), 1.0)
    assert preference(gap).item() == pytest.approx(2000)
