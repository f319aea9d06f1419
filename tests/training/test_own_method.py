"""A loss of one's own is one file, named where a method's name would stand; a weight that a method fixes is refused."""

import sys
from pathlib import Path

import pytest

from clinalign.check import check
from clinalign.cli import main
from clinalign.errors import UsageError
from clinalign.recipe import load_recipe
from clinalign.storage import named_files
from clinalign.training.options import TrainOptions, method_of

LOSS = '''
from clinalign.objectives import LossTerms, Method


def hinge(logps, coefficients):
    """max(0, 1 - beta * ((S(y+) - S(y-)) - the reference's))."""
    gap = coefficients.beta * ((logps.chosen - logps.rejected) - (logps.ref_chosen - logps.ref_rejected))
    loss = (1 - gap).clamp(min=0)
    return LossTerms(loss, {"hinge": loss}, gap)


whole = Method(hinge, preference_on="answer", kl_on="none", fixed={"alpha": 0.0, "gamma": 0.0})
strong = Method(hinge, defaults={"beta": 0.7, "gamma": 2.0})
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module's name; its file can be imported."""
    (tmp_path / "own_losses.py").write_text(LOSS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_losses", raising=False)
    return "own_losses"


def test_an_own_loss_counts_spans_and_an_own_method_what_it_says(own: str) -> None:
    plain, whole = (method_of(TrainOptions(method=f"{own}:{name}")) for name in ("hinge", "whole"))
    assert (plain.preference_on, plain.kl_on, plain.fixed) == ("spans", "spans", {})
    assert (whole.preference_on, whole.kl_on, whole.fixed["gamma"]) == ("answer", "none", 0.0)


def test_a_recipe_is_read_without_importing_it_and_its_system_has_its_name(own: str) -> None:
    recipe = load_recipe("phantom", [f"align.method={own}:hinge"])
    assert own not in sys.modules and recipe.systems()[0] == "hinge" and recipe.system("hinge") is recipe.align
    with pytest.raises(UsageError, match="compare: 'hinge' has the name of the method under `align`"):
        load_recipe("phantom", [f"align.method={own}:hinge", "compare={hinge: {}}"])


@pytest.mark.parametrize("reread", [False, True])
def test_an_own_methods_weights_stand_in_for_those_left_open(own: str, reread: bool) -> None:
    """Also when a run folder's recipe names every key."""
    options = TrainOptions(method=f"{own}:strong", gamma=0.3)
    if reread:
        options = TrainOptions.model_validate(options.model_dump())
    assert own not in sys.modules
    completed = options.completed()
    assert (completed.beta, completed.gamma, completed.alpha) == (0.7, 0.3, 0.01)
    assert TrainOptions(method="dpo").completed().beta == 0.1


def test_a_variant_or_betas_that_a_method_has_not_are_refused(own: str) -> None:
    for overrides, words in [
        (["align.method=dpo", "align.variant=paper"], "method dpo has no variant paper; it has sound"),
        (["align.method=dpo", "align.betas={side: 0.2}"], "no betas by kind; leave betas out, or take segment_dpo"),
    ]:
        with pytest.raises(UsageError, match=words):
            load_recipe("phantom", ["compare={}", *overrides])
    recipe = load_recipe("phantom", ["align.method=ipo", "align.variant=paper", "compare={d: {method: dpo}}"])
    assert recipe.align.variant == "paper" and recipe.system("d").variant == "sound"


def test_the_variant_reaches_the_loss() -> None:
    """IPO at the reference has 1 / (4 beta^2) either way; with a gap of 2 over 4 and 2 tokens the sums give
    (2 - 5)^2 = 9 and the means (2 / 4 - 5)^2 = 20.25."""
    import torch

    from clinalign.objectives import LossCoefficients, SequenceLogps

    given = SequenceLogps.zeros(1)
    given.chosen, given.chosen_tokens, given.rejected_tokens = (torch.tensor([x]) for x in (2.0, 4.0, 2.0))
    for variant, expected in (("paper", 9.0), ("sound", 20.25)):
        method = method_of(TrainOptions(method="ipo", variant=variant))
        assert method.loss(given, LossCoefficients(beta=0.1)).loss.item() == pytest.approx(expected)


def test_what_cannot_be_loaded_is_refused_by_check_in_one_line(own: str, tmp_path: Path) -> None:
    for method, words in [
        ("no_such_module:loss", "put its folder on PYTHONPATH"),
        (f"{own}:nothing", f"{own} has no 'nothing'"),
        (f"{own}:__doc__", "name a loss"),
    ]:
        with pytest.raises(UsageError, match=words) as error:
            check("phantom", [f"align.method={method}"], tmp_path / "out")
        assert "align.method" in str(error.value) and "\n" not in str(error.value)


def test_a_weight_that_an_own_method_fixes_is_refused_by_check(own: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fixes gamma at 0, so gamma=0.3 would change nothing"):
        check("phantom", [f"align.method={own}:whole", "align.gamma=0.3"], tmp_path / "out")


def test_the_file_counts_by_what_it_holds(own: str, tmp_path: Path) -> None:
    """What was trained with an earlier text of the file is trained anew."""
    options = {"method": f"{own}:hinge", "beta": 0.1}
    ((name, before),) = named_files(options)
    assert name == f"{own}:hinge" and own not in sys.modules
    (tmp_path / "own_losses.py").write_text(LOSS.replace("1 - gap", "2 - gap"), encoding="utf-8")
    assert named_files(options)[0][1] != before


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["align.method=dpo", "align.gamma=3"], "align: method dpo fixes gamma at 0, so gamma=3 would change nothing"),
        (["align.method=mdpo", "align.gamma=0.5"], "fixes gamma at 1"),
        (["align.method=rrpo", "align.lam=0"], "fixes lam at 1"),
        (["align.method=firempo", "compare={x: {method: sft, nll: 1}}"], "compare.x: method sft fixes nll at 0"),
        (["warmup={method: sft, alpha: 1}"], "warmup: method sft fixes alpha at 0"),
    ],
)
def test_a_weight_that_the_method_fixes_cannot_be_set(overrides: list[str], words: str) -> None:
    with pytest.raises(UsageError) as error:
        load_recipe("phantom", overrides)
    assert words in str(error.value) and "leave" in str(error.value) and "firempo" in str(error.value)


def test_the_fixed_value_a_default_and_weights_of_another_system_are_fine() -> None:
    assert load_recipe("phantom", ["align.method=dpo", "align.gamma=0", "compare={}"]).align.gamma == 0
    resolved = load_recipe("phantom", ["align.method=dpo", "compare={}"]).model_dump()["align"]
    assert TrainOptions.model_validate(resolved).method == "dpo"  # a run folder's recipe names every key
    recipe = load_recipe(
        "phantom", ["align.method=firempo", "align.gamma=0.7", "align.beta=0.3", "compare={d: {method: dpo}}"]
    )
    assert recipe.system("d").beta == 0.3 and recipe.align.gamma == 0.7


def test_the_command_line_refuses_it_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["clinalign", "check", "phantom", "align.method=dpo", "align.gamma=3"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and "method dpo fixes gamma at 0" in capsys.readouterr().err
