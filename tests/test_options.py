"""Options that can be read: the list, the page made of it, and what is said about a key that is not there."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from clinalign.cli import app
from clinalign.errors import UsageError
from clinalign.option_list import PEERS, as_markdown, as_text, chosen, every_option
from clinalign.recipe import Recipe, load_recipe

PAGE = Path(__file__).parents[1] / "docs" / "options.md"


def test_the_page_is_what_the_options_are() -> None:
    remedy = "write it anew with: clinalign options --markdown > docs/options.md"
    assert PAGE.read_text(encoding="utf-8") == as_markdown(Recipe), remedy


def test_every_option_has_a_type_and_a_meaning_and_stands_once() -> None:
    options = list(every_option(Recipe))
    keys = [option.key for option in options]
    assert len(set(keys)) == len(keys) and len(keys) > 150
    assert [option.key for option in options if not option.kind or not option.meaning] == []
    by_key = {option.key: option for option in options}
    assert by_key["align.lr"].kind == "number above 0" and by_key["align.lr"].default == "1e-06"
    assert by_key["align.lora.r"].kind == "whole number from 1" and by_key["align.lora.r"].default == "128"
    assert by_key["evaluate.decoder"].default == "greedy" and "evaluate.decoder (vcd).noise_step" in by_key
    assert by_key["dtype"].kind == "float32 or bfloat16 or float16" and by_key["strict"].default == "false"


def test_a_part_of_the_list_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = CliRunner().invoke(app, ["options", "align.lora"])
    assert done.exit_code == 0 and [line for line in done.output.splitlines() if line.startswith("align.lora.r  ")]
    assert "beta" not in done.output
    assert max(map(len, as_text(chosen(Recipe, "")).splitlines())) <= 80
    with pytest.raises(UsageError, match="no key 'align.lorra'; did you mean 'lora'"):
        chosen(Recipe, "align.lorra")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("align.learning_rate=1", "here it is align.lr"),
        ("learning_rate=1", "here it is align.lr"),
        ("batch_size=4", "here it is align.batch"),
        ("align.num_train_epochs=3", "here it is align.epochs"),
        ("align.per_device_train_batch_size=1", "here it is align.micro_batch"),
        ("align.gradient_accumulation_steps=8", "align.batch divided by align.micro_batch"),
        ("align.lora_r=8", "here it is align.lora.r"),
        ("align.lora.rank=8", "here it is align.lora.r"),
        ("beta=0.1", "here it is align.beta"),
        ("output_dir=x", "here it is --out"),
        ("align.bta=1", "did you mean 'beta'"),
        ("align.zzz=1", "known under align: method, beta, alpha"),
        ("align.distill={zzz: 1}", "known under align.distill: variant"),
        ("evaluate.decoder={name: vcd, zzz: 1}", "known under evaluate.decoder.vcd: temperature"),
        ("zzz=1", "(known: name, model, dtype"),
        ("compare={x: {learning_rate: 1}}", "here it is align.lr"),
    ],
)
def test_an_unknown_key_is_answered_with_its_name_here_or_its_siblings(override: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        load_recipe("phantom", [override])
    assert words in str(error.value) and "\n" not in str(error.value)


def test_what_peers_call_a_setting_leads_to_a_key_that_is_there() -> None:
    keys = {option.key for option in every_option(Recipe)}
    for name, place in PEERS.items():
        first = place.split(" ")[0].rstrip(",").partition("=")[0]
        assert first in keys or first.startswith("--") or name == "optim", name
