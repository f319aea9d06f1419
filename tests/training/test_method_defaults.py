"""A method's own weights stand in for those that are left open, wherever its options come from."""

from __future__ import annotations

import pytest

from clinalign.objectives import METHODS
from clinalign.recipe import Recipe
from clinalign.training.options import TrainOptions


def test_an_open_weight_is_the_methods_own_and_a_given_one_stays() -> None:
    assert (TrainOptions(method="keep").alpha, TrainOptions(method="firempo").alpha) == (4, 0.01)
    assert TrainOptions(method="keep", alpha=0.01).alpha == 0.01
    simpo = TrainOptions(method="simpo", beta=0.1)
    assert (simpo.beta, simpo.gamma) == (0.1, 1)
    again = TrainOptions.model_validate(simpo.model_dump())
    assert again == simpo


@pytest.mark.parametrize("reread", [False, True])
def test_a_compared_system_inherits_what_align_sets_and_not_what_its_method_takes(reread: bool) -> None:
    """Also when the recipe comes back from a run folder, where every key is named."""
    recipe = Recipe.model_validate(
        {
            "align": {"method": "keep", "beta": 0.7, "lr": 1e-3},
            "compare": {"dpo": {"method": "dpo"}, "s": {"method": "simpo"}},
        }
    )
    if reread:
        recipe = Recipe.model_validate(recipe.model_dump(mode="json"))
    dpo, simpo = recipe.system("dpo"), recipe.system("s")
    assert (dpo.alpha, dpo.beta, dpo.lr, dpo.empty_span) == (0.01, 0.7, 1e-3, "ignore")
    assert (simpo.beta, simpo.gamma) == (0.7, 1)


def test_no_default_is_fixed_or_unknown() -> None:
    for name, method in METHODS.items():
        assert not set(method.defaults) & set(method.fixed), name
        assert set(method.defaults) <= {"beta", "alpha", "gamma", "lam", "nll", "betas", "empty_span"}, name
