"""The two losses of MEDALIGN, on numbers small enough to work by hand. Numbers in names are those of the test list."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clinalign.objectives.medalign import (
    NORMS,
    attention_loss,
    bilinear,
    centres,
    cosine_gram,
    gram_from_gram,
    mean_attention,
    visual_loss,
)

T = torch.tensor([0.64, 0.16, 0.16, 0.04], dtype=torch.float64)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rotation(size: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(rand(size, size, seed=seed))[0]


def features(grid: tuple[int, int], width: int = 5, seed: int = 0) -> Tensor:
    """Random features [M, b] in fp32 whose lengths differ a lot."""
    lengths = torch.rand(grid[0] * grid[1], 1, generator=torch.Generator().manual_seed(seed)) * 5 + 0.1
    return rand(grid[0] * grid[1], width, seed=seed).float() * lengths


def test_1_visual_loss_by_hand() -> None:
    """Student (1,0), (0,1), (1,1): cosines 0, 1/sqrt 2, 1/sqrt 2. Teacher (1,0), (1,0), (0,1): cosines 1, 0, 0.

    Squared gaps 1, 1/2, 1/2, each twice among nine entries: 4 / 9. Without the three zeros of the diagonal 4 / 6.
    """
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    teacher = cosine_gram(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    assert visual_loss(student, teacher).item() == pytest.approx(4 / 9, abs=1e-6)
    assert visual_loss(student, teacher, diagonal=False).item() == pytest.approx(4 / 6, abs=1e-6)
    weights = torch.tensor([1.0, 2.0, 0.0])  # entries 12 and 21 weigh 2, whatever touches token 3 nothing
    assert visual_loss(student, teacher, weights=weights).item() == pytest.approx(2 * 2 * 1 / 9, abs=1e-6)


def test_2_attention_loss_by_hand() -> None:
    """Heads 1 and 2, rows 3 and 4, image columns 1 and 2 of five keys.

    Column 1: (.1 + .2 + .3 + .4) / 4 = .25, column 2: (.3 + .3 + .1 + .1) / 4 = .20. Teacher (3, 4).
    """
    h1 = [[0.2, 0.1, 0.3, 0.4, 0.0], [0.1, 0.2, 0.3, 0.2, 0.2]]
    h2 = [[0.3, 0.3, 0.1, 0.3, 0.0], [0.2, 0.4, 0.1, 0.1, 0.2]]
    log_map = mean_attention(torch.tensor([h1, h2]).log()[..., 1:3])
    assert log_map.exp().tolist() == pytest.approx([0.25, 0.20], abs=1e-6)
    teacher = torch.tensor([3.0, 4.0])
    assert attention_loss(log_map, teacher, norm="l2").item() == pytest.approx(0.0198960, abs=1e-6)
    assert attention_loss(log_map, teacher, norm="sum").item() == pytest.approx(0.0323891, abs=1e-6)
    assert attention_loss(log_map, teacher, norm="softmax").item() == pytest.approx(0.1228096, abs=1e-6)
    assert NORMS == {"sound": "sum", "paper": "softmax", "code": "l2"}


def published(attention: Tensor, teacher: Tensor) -> Tensor:
    """The loss as the official release computes it."""
    student, target = F.normalize(attention, dim=0), F.normalize(teacher, dim=0)
    return F.kl_div(student.log(), target, reduction="batchmean")


def test_3_code_variant_and_its_minimiser() -> None:
    """Uniform attention .0286783 (true KL .3854894); 0 where the maps agree; -.0421838, its minimum, at sqrt(T)."""
    uniform, root = torch.full((4,), 0.25, dtype=torch.float64), T.sqrt() / T.sqrt().sum()
    assert root.tolist() == pytest.approx([0.4444, 0.2222, 0.2222, 0.1111], abs=1e-4)
    for attention, value in ((uniform, 0.0286783), (T, 0.0), (root, -0.0421838)):
        ours = attention_loss(attention.log(), T, norm="l2")
        assert ours.item() == pytest.approx(value, abs=1e-6)
        assert ours.item() == pytest.approx(published(attention, T).item(), abs=1e-12)
    assert attention_loss(uniform.log(), T).item() == pytest.approx(0.3854894, abs=1e-6)


def test_3_closed_form_of_the_code_variant() -> None:
    """[KL(T || A) + log(||A|| / ||T||)] / (N ||T||)."""
    attention = rand(4, seed=3).softmax(0)
    kl = (T * (T / attention).log()).sum()
    closed = (kl + (attention.norm() / T.norm()).log()) / (4 * T.norm())
    assert attention_loss(attention.log(), T, norm="l2").item() == pytest.approx(closed.item(), abs=1e-14)


@pytest.mark.parametrize(("norm", "power"), [("l2", 0.5), ("sum", 1.0)])
def test_21_descent_ends_at_the_root_of_the_teacher_with_l2_and_at_the_teacher_with_sum(norm, power) -> None:
    teacher = rand(6, seed=4).softmax(0)
    logits = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = attention_loss(logits.log_softmax(0), teacher, norm=norm)
        loss.backward()
        return loss

    optimizer.step(closure)
    fitted, goal = logits.detach().softmax(0), teacher**power / (teacher**power).sum()
    assert torch.allclose(fitted, goal, atol=1e-5)
    assert not torch.allclose(goal, teacher ** (1.5 - power) / (teacher ** (1.5 - power)).sum(), atol=1e-2)


def test_4_bilinear_weights() -> None:
    """One row of two cells, 0 and 1: three cells read 0, 1/2, 1; four read 0, 1/4, 3/4, 1."""
    values = torch.tensor([0.0, 1.0])
    for count, expected in ((3, [0, 0.5, 1]), (4, [0, 0.25, 0.75, 1])):
        assert (bilinear(centres((1, count)), (1, 2)) @ values).tolist() == pytest.approx(expected, abs=1e-6)
    weights = bilinear(centres((24, 24)), (14, 14))
    assert torch.allclose(weights.sum(1), torch.ones(576), atol=1e-6)
    assert ((weights != 0).sum(1) <= 4).all() and ((weights != 0).sum(1) == 4).any()
    assert torch.equal(bilinear(centres((24, 24)), (24, 24)), torch.eye(576))


@pytest.mark.parametrize(
    ("source", "target"), [((14, 14), (24, 24)), ((3, 5), (7, 4)), ((8, 8), (2, 3)), ((1, 1), (2, 2))]
)
def test_4_bilinear_equals_interpolate(source, target) -> None:
    given = features(source)
    plane = given.t().reshape(1, -1, *source)
    expected = F.interpolate(plane, size=target, mode="bilinear", align_corners=False)[0].flatten(1).t()
    assert torch.allclose(bilinear(centres(target), source) @ given, expected, atol=1e-5)


def test_5_gram_route_equals_feature_route() -> None:
    """Also for features that were normalised first; and the two are different teachers."""
    given, weights = features((4, 4), seed=2), bilinear(centres((6, 6)), (4, 4))
    found = []
    for kept in (given, F.normalize(given, dim=-1)):
        direct = cosine_gram(weights @ kept)
        assert torch.allclose(gram_from_gram(kept @ kept.t(), weights), direct, atol=2e-6)
        found.append(direct)
    assert (found[0] - found[1]).abs().max() > 0.05


def test_8_invariances_of_the_visual_loss() -> None:
    x, e = rand(9, 5), rand(9, 7, seed=1)
    loss = visual_loss(x, cosine_gram(e))
    lengths = torch.rand(9, 1, dtype=torch.float64) + 0.1
    turned = cosine_gram((e * lengths) @ rotation(7))
    assert visual_loss((x * lengths) @ rotation(5, 1), turned).item() == pytest.approx(loss.item(), abs=1e-12)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert visual_loss(x[order], cosine_gram(e[order])).item() == pytest.approx(loss.item(), abs=1e-12)
    assert visual_loss(x[order], cosine_gram(e)).item() != pytest.approx(loss.item(), abs=1e-3)
    assert 0 < loss < 4
    assert visual_loss(3 * x @ rotation(5), cosine_gram(x)).item() == pytest.approx(0, abs=1e-12)
    opposed = torch.tensor([[1.0], [-1.0]])
    assert visual_loss(opposed, cosine_gram(opposed.abs()), diagonal=False).item() == pytest.approx(4)


def test_9_gradient_at_zero_w_is_symmetric() -> None:
    """S_x does not see rotations, so the part of W that would generate one gets no gradient."""
    x, teacher = rand(8, 5), cosine_gram(rand(8, 6, seed=1))
    w = torch.zeros(5, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(visual_loss(x + x @ w.t(), teacher), w)
    assert gradient.abs().max() > 1e-3
    assert (gradient - gradient.t()).abs().max() < 1e-12


def test_10_invariances_of_the_attention_loss() -> None:
    rows, teacher = rand(3, 4, 6).softmax(-1), rand(6, seed=1).exp()
    for norm in ("sum", "l2"):
        loss = attention_loss(mean_attention(rows.log()), teacher, norm=norm).item()
        scaled = mean_attention((0.03 * rows).log())
        assert attention_loss(scaled, 7 * teacher, norm=norm).item() == pytest.approx(loss, abs=1e-12)
        shuffled = mean_attention(rows[[2, 0, 1]].log())
        assert attention_loss(shuffled, teacher, norm=norm).item() == pytest.approx(loss, abs=1e-12)
        order = [5, 3, 1, 0, 2, 4]
        moved = mean_attention(rows[..., order].log())
        assert attention_loss(moved, teacher[order], norm=norm).item() == pytest.approx(loss, abs=1e-12)
        assert attention_loss(moved, teacher, norm=norm).item() != pytest.approx(loss, abs=1e-3)
    assert attention_loss(mean_attention(rows.log()), teacher).item() > 0
    assert attention_loss(teacher.log(), teacher).item() == pytest.approx(0, abs=1e-12)


def test_14_gradients() -> None:
    """By differences, and L_vis against its closed form: 4 / N^2 (S_x - S_e) X^, without its part along x, over |x|."""
    x, teacher = rand(5, 4).requires_grad_(), cosine_gram(rand(5, 3, seed=1))
    assert torch.autograd.gradcheck(lambda value: visual_loss(value, teacher), x)
    assert torch.autograd.gradcheck(lambda value: visual_loss(value, teacher, diagonal=False), x)
    scores, target = rand(2, 3, 5, seed=2).requires_grad_(), rand(5, seed=3).exp()
    for norm in ("sum", "softmax", "l2"):

        def loss(values: Tensor, norm: str = norm) -> Tensor:
            return attention_loss(mean_attention(values.log_softmax(-1)[..., :4]), target[:4], norm=norm)

        assert torch.autograd.gradcheck(loss, scores)
    unit = F.normalize(x, dim=-1)
    pulled = 4 / 25 * (unit @ unit.t() - teacher) @ unit
    expected = (pulled - (pulled * unit).sum(-1, keepdim=True) * unit) / x.norm(dim=-1, keepdim=True)
    (found,) = torch.autograd.grad(visual_loss(x, teacher), x)
    assert torch.allclose(found, expected, atol=1e-14)


def test_22_extreme_inputs_stay_finite() -> None:
    one_hot = torch.tensor([0.0, 0.0, 1.0])
    for norm in ("sum", "softmax", "l2"):
        for probabilities in ([0.5, 0.5, 0.0], [1e-38, 0.0, 0.0], [0.0, 0.0, 1.0]):
            scores = torch.tensor(probabilities, dtype=torch.bfloat16).float().log().requires_grad_()
            loss = attention_loss(scores, one_hot, norm=norm)
            (gradient,) = torch.autograd.grad(loss, scores)
            assert loss.isfinite() and gradient.isfinite().all(), (norm, probabilities)
    for tokens in (torch.ones(3, 4), torch.zeros(3, 4), torch.tensor([[0.0] * 4, [1.0] * 4, [2.0] * 4])):
        tokens.requires_grad_()
        loss = visual_loss(tokens, torch.eye(3))
        (gradient,) = torch.autograd.grad(loss, tokens)
        assert loss.isfinite() and gradient.isfinite().all() and gradient.abs().max() < 1e3


def test_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="use one of sum, softmax, l2"):
        attention_loss(torch.zeros(2), torch.ones(2), norm="max")


def test_mean_attention_survives_what_underflows() -> None:
    """exp(-200) is zero in fp32; its logarithm is not lost."""
    rows = torch.full((2, 3, 4), -200.0)
    assert mean_attention(rows).tolist() == pytest.approx([-200.0] * 4)
    assert math.isfinite(attention_loss(mean_attention(rows), torch.ones(4)).item())
