"""The head sweep against plain log-softmax and autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import token_kl
from torch.utils._python_dispatch import TorchDispatchMode

from clinalign.models import head
from clinalign.models.head import Readout, score_rows


def plain(rows, weight, targets, reference, reference_weight):
    """The same three numbers from full logits."""
    logits = rows @ weight.t()
    logps = logits.log_softmax(-1)[torch.arange(len(rows)), targets]
    known = len(reference)
    return logps, *token_kl(logits[:known], (reference @ reference_weight.t()).detach())


def case(rows=7, known=3, width=6, vocabulary=11, seed=0):
    g = torch.Generator().manual_seed(seed)
    make = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64).float()  # noqa: E731
    targets = torch.randint(vocabulary, (rows,), generator=g)
    return make(rows, width), make(vocabulary, width), targets, make(known, width), make(vocabulary, width)


@settings(max_examples=25)
@given(
    rows=st.integers(1, 9), share=st.floats(0, 1), tile=st.integers(1, 10), seed=st.integers(0, 50), own=st.booleans()
)
def test_equals_full_logits_in_value_and_gradient(rows: int, share: float, tile: int, seed: int, own: bool) -> None:
    hidden, weight, targets, reference, other = case(rows, round(share * rows), seed=seed)
    other = weight.clone() if own else other
    coefficients = torch.randn(3, rows, generator=torch.Generator().manual_seed(seed))
    gradients = []
    for score in (plain, lambda *a: score_rows(*a, tile=tile)):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        values = score(h, w, targets, reference, other)
        sum((c[: len(v)] * v).sum() for c, v in zip(coefficients, values, strict=True)).backward()
        gradients.append((*values, h.grad, w.grad))
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=2e-5, rtol=1e-4)


def test_vocabulary_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    given_ = case()
    whole = score_rows(*given_)
    monkeypatch.setattr(head, "SLICE", 4)
    for a, b in zip(whole, score_rows(*given_), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_kl_is_zero_where_policy_and_reference_agree() -> None:
    rows, weight, targets, _, _ = case()
    rows.requires_grad_()
    logps, forward, reverse = score_rows(rows, weight, targets, rows.detach())
    assert forward.abs().max() < 1e-6 and reverse.abs().max() < 1e-6
    (gradient,) = torch.autograd.grad((forward + reverse).sum(), rows)
    assert gradient.abs().max() < 1e-6


def test_low_precision_rows_are_scored_in_fp32() -> None:
    rows, weight, targets, reference, _ = case(width=64)
    exact = score_rows(rows.bfloat16().float(), weight.bfloat16().float(), targets, reference.bfloat16().float())
    low = score_rows(rows.bfloat16(), weight.bfloat16(), targets, reference.bfloat16())
    for a, b in zip(exact, low, strict=True):
        assert b.dtype == torch.float32 and torch.allclose(a, b, atol=1e-5)


class Largest(TorchDispatchMode):
    """Every tensor that any operation returns, by shape; views of the head's own weight do not count."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.own, self.shapes = weight.untyped_storage().data_ptr(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() != self.own:
                self.shapes.add(tuple(value.shape))
        return out


def test_no_tensor_over_the_vocabulary_but_the_tile_and_no_gradient_of_a_frozen_head() -> None:
    rows, weight, targets, reference, _ = case(rows=40, known=10, vocabulary=101)
    rows.requires_grad_()
    with Largest(weight) as seen:
        logps, forward, reverse = score_rows(rows, weight, targets, reference, tile=8)
        (logps.sum() + forward.sum() + reverse.sum()).backward()
    assert rows.grad is not None and weight.grad is None
    assert max(shape[0] for shape in seen.shapes if shape[-1:] == (101,) and len(shape) > 1) == 8
    assert (101, 6) not in seen.shapes


def test_a_head_that_trains_is_seen_by_the_same_probe() -> None:
    """The probe above can fail: with a head that trains, its gradient shows."""
    rows, weight, targets, reference, _ = case(rows=40, known=10, vocabulary=101)
    weight.requires_grad_()
    with Largest(weight) as seen:
        score_rows(rows, weight, targets, reference, tile=8)[0].sum().backward()
    assert (101, 6) in seen.shapes


@pytest.mark.parametrize("readout", [Readout(0.25), Readout(1.0, 2.0), Readout(3.0, 2.0)])
def test_scaled_and_capped_logits_in_value_and_gradient(readout: Readout) -> None:
    """By hand: cap * tanh(scale * product / cap), the gradient of rows, and of a head that trains."""
    generator = torch.Generator().manual_seed(0)
    rows, weight = (torch.randn(n, 5, generator=generator, requires_grad=True) for n in (7, 11))
    reference, targets = torch.randn(4, 5, generator=generator), torch.randint(11, (7,), generator=generator)
    mix = torch.randn(3, 7, generator=generator)

    def logits(states: torch.Tensor) -> torch.Tensor:
        products = states @ weight.t() * readout.scale
        return readout.cap * torch.tanh(products / readout.cap) if readout.cap else products

    p, q = logits(rows).log_softmax(-1), logits(reference).log_softmax(-1).detach()
    forward = (q.exp() * (q - p[:4])).sum(-1)
    reverse = (p[:4].exp() * (p[:4] - q)).sum(-1)
    expected = (p.gather(1, targets[:, None])[:, 0], forward, reverse)
    frozen = weight.detach().clone()
    found = score_rows(rows, weight, targets, reference, frozen, readout=readout, tile=3)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    for part in zip(
        *(
            torch.autograd.grad(sum((m[: len(v)] * v).sum() for m, v in zip(mix, values, strict=True)), (rows, weight))
            for values in (found, expected)
        ),
        strict=True,
    ):
        assert torch.allclose(*part, atol=1e-4)
