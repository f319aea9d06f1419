"""The rest of the preference family: hand-worked values, constants at the reference, signs, and reductions."""

from __future__ import annotations

import math

import pytest
import torch

from clinalign.objectives import METHODS, LossCoefficients, LossTerms, SequenceLogps, anchored
from clinalign.objectives.dft import asft
from clinalign.objectives.ipo import ipo
from clinalign.objectives.kto import baseline, kto
from clinalign.objectives.logps import ViewLogps
from clinalign.objectives.lpoi import ranked
from clinalign.objectives.mmedpo import relevance
from clinalign.objectives.opa_dpo import by_position
from clinalign.objectives.rescale import factor, rescaled, smoothed
from clinalign.objectives.symmetric import distilled
from clinalign.objectives.vdpo import vdpo

LOG2 = math.log(2)

PAIR = dict(
    chosen=-2.0, rejected=-5.0, counterfactual=-4.0, ref_chosen=-3.0, ref_rejected=-4.0, ref_counterfactual=-3.5,
    corrupt_chosen=-2.0, corrupt_rejected=-6.0, corrupt_counterfactual=-3.0,
    corrupt_ref_chosen=-4.0, corrupt_ref_rejected=-4.0, corrupt_ref_counterfactual=-4.0,
    has_corrupt=1.0, chosen_tokens=4.0, rejected_tokens=5.0, nll_tokens=4.0, weight=0.5,
    kl_forward=0.8, kl_reverse=0.4, nll=0.7, dft=0.3,
    rejected_kl_forward=1.2, rejected_kl_reverse=1.0, rejected_nll=1.1,
    corrupt_kl_forward=0.6, corrupt_kl_reverse=0.2, corrupt_nll=0.9, likeliest=-6.0, ref_likeliest=-6.0, baseline=0.2,
)  # fmt: skip
"""Log ratios r = S - S_ref: y+ 1, y- -1, y0 -0.5 under v; y+ 2, y- -2, y0 1 under v'; y~ 0 under v."""

SEEN = {
    "free": {"chosen": 0.5, "rejected": -0.5, "counterfactual": 0.25},
    "first": {"chosen": 1.0, "counterfactual": -0.5},
    "second": {"chosen": 0.5, "counterfactual": -1.0},
    "level1": {"chosen": 0.0},
    "level2": {"chosen": -1.0},
}
"""Log ratios under further views; the reference has -4 everywhere."""


def logps(seen: dict[str, dict[str, float]] = SEEN, **changes: float) -> SequenceLogps:
    out = SequenceLogps.zeros(1)
    for name, value in (PAIR | changes).items():
        setattr(out, name, torch.tensor([value], requires_grad=True))
    for view, ratios in seen.items():
        sums = {side: torch.tensor([ratio - 4.0], requires_grad=True) for side, ratio in ratios.items()}
        reference = {side: torch.full((1,), -4.0, requires_grad=True) for side in ratios}
        out.views[view] = ViewLogps(torch.ones(1), sums, reference)
    return out


def shown(name: str, **changes: float) -> SequenceLogps:
    """The pair as a method scores it: of the views, its own alone."""
    return logps({view: SEEN[view] for view in METHODS[name].views if view in SEEN}, **changes)


def run(name: str, given: SequenceLogps | None = None, **weights: float) -> LossTerms:
    method = METHODS[name]
    given = shown(name) if given is None else given
    coefficients = method.coefficients(LossCoefficients(**weights))
    return anchored(method.loss(given, coefficients), given, coefficients)


def log1pexp(x: float) -> float:
    return math.log1p(math.exp(x))


def test_the_hand_worked_constants_are_what_they_are_called() -> None:
    """-log s(m) = log(1 + e^-m) for the margins met below, to seven digits."""
    for margin, value in [(1, 0.3132617), (0.75, 0.3868710), (0.5, 0.4740770), (-0.5, 0.9740770), (1.5, 0.2014133),
                          (0.6, 0.4374879), (0.25, 0.5759393), (-0.75, 1.1368710), (0.375, 0.5231233)]:  # fmt: skip
        assert log1pexp(-margin) == pytest.approx(value, abs=1e-6)


WEIGHTS = dict(beta=0.5, alpha=0.1, gamma=0.2, lam=0.25)

BY_HAND = {
    # KL2 = 0.25 * 0.8 + 0.75 * 0.4 = 0.5, under v' 0.25 * 0.6 + 0.75 * 0.2 = 0.3
    # keep: 0.7 + 0.1 * 0.5
    "keep": 0.75,
    # margin 0.5 * (1 - -1) = 1; gate 2 s(-1) = 2 * 0.2689414 = 0.5378828; 0.5378828 * 0.7 + 0.05
    "keep_gated": 0.4265180,
    # keep + 0.2 * (0.9 + 0.1 * 0.3)
    "counterfactual_keep": 0.75 + 0.186,
    # m = 0.5 * (1 - -0.5) = 0.75 -> 0.3868710; m' = 0.5 * (1 - 2) = -0.5 -> 0.9740770;
    # anchors 0.5 * 1 = 0.5 -> 0.4740770, under v' 0.5 * 1 = 0.5 -> 0.4740770; KL2 0.1 * (0.5 + 0.3)
    "symmetric": 0.3868710 + 0.4740770 + 0.2 * (0.9740770 + 0.4740770) + 0.08,
    # 1.75 / 2 * (0.3868710 + 0.9740770 + 2 * 0.4740770)
    "ic_vco_single": 0.875 * (0.3868710 + 0.9740770 + 0.9481540),
    # rank 0.3132617, lam 0.25 * (m + m'), both anchors, 1e-4 * (1.5 - -1)^2 = 6.25e-4
    "symmpo": 0.3132617 + 0.25 * (0.3868710 + 0.9740770) + 0.9481540 + 0.000625,
    # DPO at margin 1 (and an NLL of weight 0 here)
    "rpo": 0.3132617,
    # means: 1 / 4 - -1 / 5 = 0.45; target 1 / (2 * 0.5) = 1; 0.55^2
    "ipo": 0.3025,
    # 0.5 * (-2 / 4 - -5 / 5) = 0.25, less 0.2: log(1 + e^-0.05)
    "simpo": 0.6684594,
    # p = e^-0.5 and e^-1: log odds -0.5 - log(1 - 0.6065307) = 0.4327521 and -1 - log(1 - 0.3678794) = -0.5413249;
    # -log s(0.9740770) = 0.3202998; 0.7 + 0.5 * 0.3202998
    "orpo": 0.8601499,
    # the chosen answer has risen: no penalty
    "dpop": 0.3132617,
    # 1 - 0.5 * (1.2 - 0.8) = 0.8: log(1 + e^-0.8)
    "tdpo1": 0.3711007,
    # 1 - 0.5 * 0.1 * 0.4 = 0.98: log(1 + e^-0.98)
    "tdpo2": 0.3186800,
    # 0.98 + 0.5 * (1 - 2) = 0.48: log(1 + e^-0.48)
    "chip": 0.4816749,
    # 0.5 * (1 / 4 - -1 / 5) = 0.225: log(1 + e^-0.225)
    "ddpo": 0.5869620,
    # 0.5 * (1 - 2) = -0.5
    "copo": 0.9740770,
    # 0.5 * (1 - -2) = 1.5, times the pair's 0.5
    "mmedpo": 0.1007067,
    # rank 0.3132617 + 0.2 * copo's + 0.1 * anchor
    "opa_dpo": 0.3132617 + 0.2 * 0.9740770 + 0.1 * 0.4740770,
    "dft": 0.3,
    # code: 0.3 + 0.1 * 0.8 / 4
    "asft": 0.32,
    # z0 0.2: (1 - s(0.5 * 0.8)) / 2 + (1 - s(0.5 * 1.2)) / 2 = 0.4013123 / 2 + 0.3543437 / 2
    "kto": 0.3778280,
    # DPO's value; its gradients are rescaled
    "rc": 0.3132617,
    # kinds weigh where the sums are formed: DPO of these sums
    "segment_dpo": 0.3132617,
    # gamma 0.2: r^(y+) 0.2 * 1 + 0.8 * 0.5 = 0.6, r^(y-) 0.2 * -1 + 0.8 * -0.5 = -0.6: 0.5 * 1.2 = 0.6
    "vdpo": 0.4374879,
    # gaps, times 0.5: y+ 1 - 0.5 = 0.5, 0.5 - 2 = -1.5; y0 1 - 0.25 = 0.75, 0.25 - -0.5 = 0.75; log(1 + e^-0.25) =
    # 0.5759393, log(1 + e^0.75) = 1.1368710, log(1 + e^-0.375) = 0.5231233 twice
    "svco": 0.5759393 + 1.1368710 + 2 * 0.5231233,
    # single branch as above; joint 0.375 * [0.5 * (1 - -0.5) = 0.75, 0.5 * 1 = 0.5; 0.5 * (-1 - 0.5) = -0.75, -0.5]
    "ic_vco": 0.875 * (0.3868710 + 0.9740770 + 0.9481540) + 0.375 * (0.3868710 + 0.4740770 + 1.1368710 + 0.9740770),
    # rewards 0.5, 0, -0.5, 1 of four images; e^: 1.6487213, 1, 0.6065307, 2.7182818, sums from the end 2.7182818,
    # 3.3248125, 4.3248125, 5.9735338: log(5.9735338 * 4.3248125 * 3.3248125 * 2.7182818) - (0.5 + 0 - 0.5 + 1)
    "lpoi": math.log(5.9735338 * 4.3248125 * 3.3248125 * 2.7182818) - 1,
    # alpha 0.1: 0.9 at margin 1, 0.1 at margin 0.5 * (1 - 0)
    "povid": 0.9 * 0.3132617 + 0.1 * 0.4740770,
}


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_by_hand(name: str) -> None:
    """beta 0.5, alpha 0.1, gamma 0.2 (mdpo's kin and SymMPO: 1), lam 0.25; the arithmetic stands beside each number."""
    assert run(name, **WEIGHTS).loss.item() == pytest.approx(BY_HAND[name], abs=2e-6)


def test_parts_add_up_and_every_method_has_a_number_by_hand() -> None:
    from test_objectives import AROUND_FIREMPO

    assert set(BY_HAND) | set(AROUND_FIREMPO) | {"sft"} == set(METHODS)
    for name in METHODS:
        terms = run(name, **WEIGHTS)
        assert sum(part.item() for part in terms.parts.values()) == pytest.approx(terms.loss.item(), abs=1e-6)


AT_REFERENCE = {
    # log-probabilities -2 and -5 of 4 and 5 tokens, KLs 0, NLL 0.7 and 0.9, gamma 0.2
    "keep": 0.7, "keep_gated": 0.7, "counterfactual_keep": 0.7 + 0.2 * 0.9, "symmetric": 2 * LOG2 * 1.2,
    "ic_vco_single": 3.5 * LOG2, "symmpo": LOG2 + 0.25 * 2 * LOG2 + 2 * LOG2, "rpo": LOG2, "ipo": 1.0,
    "dpop": LOG2, "tdpo1": LOG2, "tdpo2": LOG2, "chip": LOG2, "ddpo": LOG2, "copo": LOG2, "mmedpo": 0.5 * LOG2,
    "opa_dpo": LOG2 * 1.3, "dft": 0.3, "asft": 0.3, "kto": 0.5, "rc": LOG2, "segment_dpo": LOG2, "vdpo": LOG2,
    "svco": 4 * LOG2, "ic_vco": 5 * LOG2, "lpoi": math.log(24), "povid": LOG2,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(AT_REFERENCE))
def test_at_the_reference_each_loss_has_its_constant(name: str) -> None:
    """Every sigmoid term is log 2 at its weight, every KL 0; IPO 1 / (4 * 0.5^2) = 1. SimPO and ORPO have no
    reference to be at."""
    same = {f"ref_{side}": PAIR[side] for side in ("chosen", "rejected", "counterfactual")}
    same |= {f"corrupt_{k}": PAIR[f"corrupt_{k.removeprefix('ref_')}"] for k in list(same)}
    same |= {key: 0.0 for key in PAIR if "kl_" in key} | {"baseline": 0.0}
    assert set(AT_REFERENCE) == set(BY_HAND) - {"simpo", "orpo"}
    given = shown(name, **same)
    for view in given.views.values():
        view.ref_logps = view.logps
    assert run(name, given, **WEIGHTS).loss.item() == pytest.approx(AT_REFERENCE[name], abs=1e-6)


UP_AND_DOWN = {
    # of each method, sums whose gradient is negative (they rise) and positive (they fall)
    "keep": ("", "nll kl_forward kl_reverse"),
    "keep_gated": ("", "nll kl_forward kl_reverse"),
    "counterfactual_keep": ("", "nll kl_forward kl_reverse corrupt_nll corrupt_kl_forward corrupt_kl_reverse"),
    "symmetric": ("chosen corrupt_counterfactual", "counterfactual corrupt_chosen kl_forward corrupt_kl_reverse"),
    "ic_vco_single": ("chosen corrupt_counterfactual", "counterfactual corrupt_chosen"),
    "symmpo": ("chosen corrupt_counterfactual", "rejected counterfactual corrupt_chosen"),
    "rpo": ("chosen", "rejected"),
    "ipo": ("chosen", "rejected"),
    "simpo": ("chosen", "rejected"),
    "orpo": ("chosen", "rejected nll"),
    "dpop": ("chosen", "rejected"),
    "tdpo1": ("chosen", "rejected rejected_kl_forward"),
    "tdpo2": ("chosen", "rejected rejected_kl_forward"),
    "chip": ("chosen", "rejected corrupt_chosen rejected_kl_forward"),
    "ddpo": ("chosen", "rejected"),
    "copo": ("chosen", "corrupt_chosen"),
    "mmedpo": ("chosen", "corrupt_rejected"),
    "opa_dpo": ("chosen", "rejected corrupt_chosen"),
    "dft": ("", "dft"),
    "asft": ("", "dft kl_forward"),
    "kto": ("chosen", "rejected"),
    "rc": ("chosen", "rejected"),
    "segment_dpo": ("chosen", "rejected"),
    "vdpo": ("chosen free.chosen", "rejected free.rejected"),  # gamma below 1 weighs the text itself
    "svco": ("chosen corrupt_counterfactual", "corrupt_chosen counterfactual"),
    "ic_vco": (
        "chosen corrupt_counterfactual first.chosen second.counterfactual",
        "counterfactual corrupt_chosen first.counterfactual second.chosen",
    ),
    "lpoi": ("chosen", "corrupt_chosen"),
    "povid": ("chosen", "rejected likeliest"),
}


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_gradient_signs(name: str) -> None:
    """What a loss should raise rises, what it should lower falls, and reference values that it names get no sign test:
    they are constants."""
    given = shown(name)
    run(name, given, **WEIGHTS).loss.sum().backward()
    up, down = UP_AND_DOWN[name]
    for field, sign in [(f, -1) for f in up.split()] + [(f, 1) for f in down.split()]:
        view, _, side = field.rpartition(".")
        value = given.views[view].logps[side] if view else getattr(given, field)
        assert value.grad is not None and sign * value.grad.item() > 0, field


def test_the_gate_is_a_constant_and_closes() -> None:
    """Only the NLL and the KL have gradients; at a margin of 20 a 10^-8 of the cross-entropy is left."""
    given = logps()
    run("keep_gated", given, **WEIGHTS).loss.sum().backward()
    assert given.chosen.grad is None and given.rejected.grad is None
    assert given.nll.grad is not None and given.nll.grad.item() == pytest.approx(0.5378828, abs=1e-6)
    closed = run("keep_gated", logps(chosen=37.0), **WEIGHTS)
    assert 0 < closed.parts["nll"].item() < 1e-7


def test_without_a_counterfactual_the_image_terms_are_zero() -> None:
    given = logps(has_corrupt=0.0)
    assert run("counterfactual_keep", given, **WEIGHTS).loss.item() == pytest.approx(0.75)
    assert run("opa_dpo", given, **WEIGHTS).parts["visual"].item() == 0


def test_dpop_punishes_a_chosen_answer_below_the_reference() -> None:
    """r(y+) = -4 + 3 = -1, r(y-) = -1: margin 0.5 * (0 - 0.1 * 1) = -0.05: log(1 + e^0.05) = 0.7184596."""
    assert run("dpop", logps(chosen=-4.0), **WEIGHTS).loss.item() == pytest.approx(0.7184596, abs=1e-6)


def test_rpo_is_dpo_with_an_nll() -> None:
    """0.3132617 + 1 * 0.7."""
    assert METHODS["rpo"].defaults == {"nll": 1}
    assert run("rpo", nll=1.0, **WEIGHTS).loss.item() == pytest.approx(1.0132617, abs=1e-6)


def test_ipo_has_its_minimum_at_half_the_inverse_temperature() -> None:
    """`paper`: sums, 1 - -1 = 2, target 1: (2 - 1)^2 = 1; the gap that is the target has loss and gradient 0."""
    assert ipo(logps(), LossCoefficients(beta=0.5), "paper").loss.item() == pytest.approx(1.0)
    given = logps(chosen=1.0, rejected=-4.0)  # means: 4 / 4 - 0 / 5 = 1
    loss = ipo(given, LossCoefficients(beta=0.5)).loss
    loss.sum().backward()
    assert loss.item() < 1e-12 and given.chosen.grad is not None and abs(given.chosen.grad.item()) < 1e-6


def test_asft_of_the_paper_takes_the_other_kl() -> None:
    """0.3 + 0.1 * 0.4 / 4 = 0.31."""
    assert asft(logps(), LossCoefficients(alpha=0.1), "paper").loss.item() == pytest.approx(0.31)


def test_mmedpo_weighs_the_pair() -> None:
    """s' = 0: no gradient; s' = 1 and v* = v (equal sums): DPO. Standardised
    scores -1.2247, 0, 1.2247 clipped to [0.1, 1]."""
    given = logps(weight=0.0)
    run("mmedpo", given).loss.sum().backward()
    assert given.chosen.grad is not None and given.chosen.grad.item() == 0
    same = logps(weight=1.0, corrupt_rejected=PAIR["rejected"], corrupt_ref_rejected=PAIR["ref_rejected"])
    assert run("mmedpo", same, beta=0.5).loss.item() == pytest.approx(run("dpo", same, beta=0.5).loss.item())
    assert relevance(torch.tensor([1.0, 2.0, 3.0]), 0.1, 1.0).tolist() == pytest.approx([0.1, 0.1, 1.0])
    with pytest.raises(ValueError, match="negative"):
        relevance(torch.tensor([1.0, 2.0]), -0.5, 1.0)


def test_kto_takes_its_baseline_as_a_constant() -> None:
    """z0 = max(0, mean(0.4, 0)) = 0.2, and never negative; it has no gradient."""
    z0 = baseline(torch.tensor([-2.6, -3.0], requires_grad=True), torch.tensor([-3.0, -3.0]))
    assert z0.item() == pytest.approx(0.2) and not z0.requires_grad
    assert baseline(torch.tensor([-3.0]), torch.tensor([-2.0])).item() == 0
    given = shown("kto", ref_chosen=PAIR["chosen"], ref_rejected=PAIR["rejected"])
    assert kto(given, LossCoefficients(beta=0.5)).loss.item() == pytest.approx(
        0.5 / (1 + math.exp(-0.1)) + 0.5 / (1 + math.exp(0.1))
    )


def test_vdpo_at_gamma_1_is_dpo() -> None:
    """gamma 2, beta 0.5: r^ of y+ 2 * 1 - 0.5 = 1.5, of y- 2 * -1 + 0.5 = -1.5: 0.5 * 3 = 1.5 -> 0.2014133. At gamma 1
    the value and the gradients of DPO, and none without the image."""
    assert run("vdpo", beta=0.5, gamma=2).loss.item() == pytest.approx(0.2014133, abs=1e-6)
    given, plain = shown("vdpo"), shown("dpo")
    loss, expected = run("vdpo", given, beta=0.5, gamma=1).loss, run("dpo", plain, beta=0.5).loss
    loss.sum().backward()
    expected.sum().backward()
    assert loss.item() == expected.item()
    for side in ("chosen", "rejected"):
        assert getattr(given, side).grad.equal(getattr(plain, side).grad)
        assert given.views["free"].logps[side].grad.item() == 0


def test_vdpo_as_shipped_has_no_gradient_and_is_refused() -> None:
    with pytest.raises(ValueError, match="no gradient"):
        vdpo(shown("vdpo"), LossCoefficients(gamma=0), "code")
    given = shown("vdpo")
    vdpo(given, LossCoefficients(gamma=2), "code").loss.sum().backward()
    assert given.views["free"].logps["chosen"].grad is None and given.chosen.grad is not None


def test_lpoi_ranks_the_images_that_a_pair_has() -> None:
    """Rewards log 4, log 2, log 1: the order has chance 4/7 * 2/3 = 8/21, also beside a step that the pair has not; the
    fullest image rises and the emptiest falls."""
    rewards = torch.tensor([[4.0, 4.0], [9.0, 2.0], [2.0, 3.0], [1.0, 1.0]]).log().requires_grad_()
    has = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    loss = ranked(rewards, has)
    loss.sum().backward()
    assert loss[0].item() == pytest.approx(math.log(21 / 8), abs=1e-6)
    assert loss[1].item() == pytest.approx(-math.log(4 / 10 * 2 / 6 * 3 / 4), abs=1e-6)
    assert rewards.grad is not None and rewards.grad[1, 0].item() == 0
    assert (rewards.grad[0] < 0).all() and (rewards.grad[3] > 0).all()


def test_povid_without_its_noised_half_is_dpo() -> None:
    assert run("povid", beta=0.5, alpha=0).loss.item() == pytest.approx(0.3132617, abs=1e-6)
    assert METHODS["povid"].defaults["alpha"] == 0.5


def test_ic_vco_has_both_branches() -> None:
    """The joint branch is no surer than the single one here (margins 0.75 and -0.75 against 0.75 and -0.5)."""
    terms = run("ic_vco", **WEIGHTS)
    alone = run("ic_vco_single", **WEIGHTS).loss.item()
    assert terms.loss.item() - terms.parts["joint"].item() == pytest.approx(alone, abs=1e-6)
    assert terms.parts["distilled"].item() == 0


def test_ic_vco_distils_where_both_images_together_are_right_and_surer() -> None:
    """t = s(1) = 0.7310586 at m = 0.5: 0.7310586 * 0.4740770 + 0.2689414 * 0.9740770 = 0.6085479.

    t = s(0.25) = 0.5621765 at m' = -0.5: 0.5621765 * 0.9740770 + 0.4378235 * 0.4740770 = 0.7551652; both: 0.6818566.
    A wrong teacher (-1) and a surer student (2 over 1) count for nothing. Gradient at m: s(m) - t = 0.6224593 -
    0.7310586, halved where both count.
    """
    student = torch.tensor([[0.5, 0.5, 2.0], [-0.5, -0.5, -0.5]], requires_grad=True)
    teacher = torch.tensor([[1.0, 1.0, 1.0], [0.25, -1.0, -1.0]], requires_grad=True)
    loss = distilled(student, teacher)
    assert loss.tolist() == pytest.approx([0.6818566, 0.6085479, 0.0], abs=1e-6)
    loss.sum().backward()
    assert student.grad is not None and teacher.grad is None
    assert student.grad[0].tolist() == pytest.approx([-0.0542997, -0.1085993, 0.0], abs=1e-6)


def test_opa_dpo_by_position_compares_what_does_not_belong_together() -> None:
    """Ratios (1, 0) against (0, 1): the sums are equal (log 2), by position 1 and -1: (0.3132617 + 1.3132617) / 2."""
    loss = by_position(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), beta=1.0)
    assert loss.item() == pytest.approx(0.8132617, abs=1e-6)


def test_rc_keeps_values_and_scales_the_two_gradients() -> None:
    """r* = 4, r = 1: a = 2; DPO's gradients -g and g become -2 g and g / 2, so their ratio is r*."""
    assert factor(4.0) == pytest.approx(2.0) and factor(4.0, 4.0) == pytest.approx(1.0)
    grads = {}
    for a in (1.0, factor(4.0)):
        given = logps()
        loss = METHODS["dpo"].loss(rescaled(given, a), LossCoefficients(beta=0.5)).loss
        loss.sum().backward()
        assert loss.item() == pytest.approx(0.3132617, abs=1e-6)
        assert given.chosen.grad is not None and given.rejected.grad is not None
        grads[a] = given.chosen.grad.item(), given.rejected.grad.item()
    assert grads[2.0] == pytest.approx((2 * grads[1.0][0], grads[1.0][1] / 2))
    assert abs(grads[2.0][0] / grads[2.0][1]) == pytest.approx(4.0)
    with pytest.raises(ValueError, match="positive"):
        factor(0.0)


def test_rc_smooths_in_the_logarithm() -> None:
    """0.98 * log 4 + 0.02 * log 1 = 0.98 log 4."""
    assert smoothed(None, 3.0) == 3.0
    assert smoothed(4.0, 1.0) == pytest.approx(4.0**0.98)
