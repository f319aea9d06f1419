"""Dropout by token: its rate, its independence, and that a mask belongs to whom it says."""

import pytest
import torch

from clinalign.models.dropout import TokenDropout, token_keys


def mask(owner: str, *, draw: int = 3, layer: int = 0, count: int = 200, width: int = 300, rate: float = 0.3):
    """1 where an element is dropped, [count, width]."""
    dropout = TokenDropout()
    dropout.step(draw)
    dropout.tokens(torch.from_numpy(token_keys(owner, count=count))[None])
    out = dropout(torch.ones(1, count, width), rate, layer)
    assert set(out.unique().tolist()) <= {0.0, torch.tensor(1.0).mul(1 / (1 - rate)).item()}
    return (out[0] == 0).double()


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_the_rate_holds_over_tokens_and_features(rate: float) -> None:
    dropped = mask("a", rate=rate)
    count, width = dropped.shape
    assert dropped.mean().item() == pytest.approx(rate, abs=4 * (rate * (1 - rate) / dropped.numel()) ** 0.5)
    for shares, n in ((dropped.mean(0), count), (dropped.mean(1), width)):
        # As scattered as independent draws: the spread of the shares, and no share further out than 5 deviations.
        assert shares.std().item() == pytest.approx((rate * (1 - rate) / n) ** 0.5, rel=0.2)
        assert (shares - rate).abs().max().item() < 5 * (rate * (1 - rate) / n) ** 0.5


@pytest.mark.parametrize("other", [{"owner": "b"}, {"draw": 4}, {"draw": 3 + 2**40}, {"layer": 1}, {"layer": 7}])
def test_masks_of_other_owners_steps_and_layers_are_unrelated(other) -> None:
    one, two = mask("a"), mask(**({"owner": "a"} | other))
    both = (one * two).mean().item()
    assert both == pytest.approx(0.09, abs=5 * (0.09 * 0.91 / one.numel()) ** 0.5)
    assert mask("a").equal(one)


def test_neighbouring_tokens_and_features_are_unrelated() -> None:
    dropped = mask("a") - 0.3
    for shift, axis in ((1, 0), (2, 0), (1, 1), (16, 1)):
        product = (dropped * dropped.roll(shift, axis)).mean().item()
        assert abs(product) < 5 * 0.21 / dropped.numel() ** 0.5


def test_a_layer_that_is_given_a_few_columns_drops_the_same_of_them() -> None:
    dropout, keys = TokenDropout(), torch.from_numpy(token_keys("a", count=6))[None]
    few = torch.tensor([[1, 4]])
    dropout.tokens(keys, few)
    x = torch.randn(1, 6, 40)
    assert dropout(x[:, [1, 4]], 0.4, 2).equal(dropout(x, 0.4, 2)[:, [1, 4]])
    assert dropout(x[:, :3], 0.4, 2) is None, "tokens without keys"
    dropout.tokens(None)
    assert dropout(x, 0.4, 2) is None
