import json
import time
from pathlib import Path

import pytest

from clinalign.errors import UsageError
from clinalign.folder import device_of
from clinalign.recipe import SHIPPED, Recipe, load_recipe


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert load_recipe(path.stem) == load_recipe(path)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "examples").glob("*.yaml")), ids=lambda p: p.stem)
def test_example_recipes_are_valid(path: Path) -> None:
    assert load_recipe(path).systems()


def test_overrides_reach_nested_keys_and_are_typed(tmp_path: Path) -> None:
    made = load_recipe(
        recipe(tmp_path, "align: {beta: 0.1}"), ["align.beta=0.5", "align.lr=1e-4", "compare.dpo={method: dpo}"]
    )
    assert made.align.beta == 0.5 and made.align.lr == 1e-4
    assert made.systems() == ["firempo", "dpo"]
    assert made.system("dpo").method == "dpo" and made.system("dpo").beta == 0.5
    assert made.system("firempo") is made.align


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("aling: {}", [], r"r\.yaml: unknown key 'aling'; did you mean 'align'\?"),
        ("align: {bta: 1}", [], r"unknown key 'align.bta'; did you mean 'beta'\?"),
        ("align: {lora: {rank: 1}}", [], r"unknown key 'align.lora.rank'"),
        ("rounds: 0", [], r"r\.yaml: rounds: .*greater than or equal to 1, got 0"),
        ("align: {beta: x}", [], r"align.beta: .*got 'x'"),
        ("compare: {dpo: {bta: 1}}", [], r"compare.dpo: unknown key 'bta'; did you mean 'beta'\?"),
        ("compare: {firempo: {method: dpo}}", [], "rename it"),
        ("compare: {FireMPO: {method: dpo}}", [], "'FireMPO' has the name of the method under `align`"),
        ("compare: {a: {}, A: {}}", [], "'A' is 'a' but for capitals"),
        ("compare: {base: {method: dpo}}", [], "'base' is a reserved name; rename it"),
        ("compare: {maps: {}}", [], "'maps' is a reserved name"),
        ("compare: {Nul.1: {}}", [], "is a reserved name"),
        ("compare: {../../x: {}}", [], r"'../../x' is not made of letters"),
        ("", ["compare={'..': {}}"], "'..' is not made of letters"),
        ("", ["compare={'a:round0': {}}"], "is not made of letters"),
        ("", ["compare={'a\\b': {}}"], "is not made of letters"),
        ("", ["compare={'': {}}"], "'' is no name"),
        ("", ["compare={'a ': {}}"], "has space around it"),
        ("", [f"compare={{{'x' * 65}: {{}}}}"], "is longer than 64 bytes"),
        ("", ["compare={1: {}}"], "should be a valid string"),
        ("[1, 2]", [], "a recipe is a YAML mapping"),
        ("a: [", [], "not valid YAML"),
        ("", ["beta"], "an override is key=value"),
        ("seed: 1", ["seed.x=1"], "'seed' is a value, not a group"),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do(
    tmp_path: Path, text: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(recipe(tmp_path, text), overrides)
    assert "\n" not in str(caught.value)


def test_off_is_a_word_where_a_word_is_asked_for_and_false_where_a_truth_value_is() -> None:
    made = load_recipe("phantom", ["align.cache=off", "strict=on", "corrupt.control=no", "evaluate.legacy=false"])
    assert made.align.cache == "off" and made.strict and not made.corrupt.control and not made.evaluate.legacy


def test_a_label_may_say_what_differs(tmp_path: Path) -> None:
    labels = ["dpo, beta=0.2", "élan (2)", "v1.5_b+c"]
    text = "compare: " + json.dumps({label: {"method": "dpo"} for label in labels})
    assert load_recipe(recipe(tmp_path, text)).systems() == ["firempo", *labels]


def test_a_missing_recipe_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such recipe file; did you mean 'demo'"):
        load_recipe("dmo")


def test_every_option_is_described() -> None:
    def undescribed(model: type, prefix: str = "") -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and hasattr(inner, "model_fields"):
                found += undescribed(inner, f"{prefix}{name}.")
            if not field.description:
                found.append(prefix + name)
        return found

    assert undescribed(Recipe) == []


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]\n" for below, name in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (BOMB, "values"),
        ("compare: {a: {x: &x [1, *x]}}", "values"),
        ("compare: &c {a: *c}", "values"),
        ("[" * 50_000, "YAML"),
        ("name: " + "9" * 5000, "YAML"),
        ("name: 2001-99-99", "YAML"),
        ("name: 2001-01-01", "date"),
        ("name: !!binary aGk=", "bytes"),
        ("name: !!python/object/apply:os.system [ls]", "YAML"),
        ('name: "\\ud800"', "half a character"),
        ('model: "a\\0b"', "NUL"),
        ("x" * 2_000_000, "larger than"),
        ("align: {lr: .inf}", "align.lr"),
        ("align: {beta: .nan}", "align.beta"),
        ("align: {lr: inf}", "align.lr"),
        ("data: {source: table, path: t.csv, splits: {align: inf}}", "splits.align"),
        ("seed: -1", "seed"),
        ("seed: 99999999999", "seed"),
        ("data: {seed: -1}", "data.seed"),
        ("align: {seed_model: -1}", "align.seed_model"),
        ("device: foo", "device"),
        ("device: cuda:x", "device"),
        ("\x00", "YAML"),
    ],
)
def test_a_hostile_recipe_is_one_short_line(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "r.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    started = time.monotonic()
    with pytest.raises(UsageError) as error:
        load_recipe(tmp_path / "r.yaml")
    assert time.monotonic() - started < 20
    assert word in str(error.value) and len(str(error.value)) < 700 and "\n" not in str(error.value)


@pytest.mark.parametrize("override", ["align.lr=.inf", "align.lr=inf", "seed=-1", "device=foo", "name=2001-99-99"])
def test_a_hostile_override_is_one_line(override: str) -> None:
    with pytest.raises(UsageError):
        load_recipe("phantom", [override])


def test_a_recipe_may_carry_a_mark_and_use_an_alias(tmp_path: Path) -> None:
    text = "name: é\nalign: {lora: &lora {r: 4}}\ncompare: {dpo: {method: dpo, lora: *lora}}\n"
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "r.yaml").write_bytes(text.encode(encoding))
        recipe = load_recipe(tmp_path / "r.yaml")
        assert recipe.name == "é" and recipe.system("dpo").lora.r == 4


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps", "xpu"])
def test_a_device_that_is_not_there_is_one_line(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for kind in (torch.cuda, torch.mps, torch.xpu):
        monkeypatch.setattr(kind, "device_count", lambda: 0)
    with pytest.raises(UsageError, match="use auto or cpu"):
        device_of(load_recipe("phantom", [f"device={device}"]).device)
    assert device_of("cpu") == "cpu"
