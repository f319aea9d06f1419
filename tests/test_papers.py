"""Every recipe of a published row is valid, and says the number that the table says."""

import re
from pathlib import Path

import pytest

from clinalign.recipe import load_recipe

ROOT = Path(__file__).parents[1]
PAPERS = sorted((ROOT / "examples" / "papers").glob("*.yaml"))
TABLE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")


def test_there_is_a_recipe_for_every_row() -> None:
    named = set(re.findall(r"^\| `(\w+\.yaml)`", TABLE, re.M))
    assert named == {path.name for path in PAPERS} and len(named) >= 10


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_its_number_is_the_tables(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    assert load_recipe(path, [f"data.path={tmp_path}"]).data.path == str(tmp_path)
    head = path.read_text(encoding="utf-8").splitlines()[0]
    row = next(line for line in TABLE.splitlines() if f"`{path.name}`" in line)
    published, ours = (cell.strip() for cell in row.split("|")[4:6])
    told = f"Published: {published} (" if path.stem.startswith("medalign") else f"Published average {published} %"
    assert told in head and ours == "not run"
    assert recipe.dtype == "bfloat16" and recipe.align.batch in (8, 32)


@pytest.mark.parametrize("method", ["firempo", "rrpo", "mask_dpo", "dpo", "mdpo"])
@pytest.mark.parametrize("model", ["huatuo", "qwen3vl"])
def test_the_settings_are_the_published_ones(model: str, method: str) -> None:
    recipe = load_recipe(ROOT / "examples" / "papers" / f"{model}_{method}.yaml")
    align = recipe.align
    assert (align.method, align.lr, align.beta, align.alpha, align.gamma, align.lam) == (
        method,
        1e-6,
        0.1,
        0.01,
        0.1,
        0.5,
    )
    assert (align.lora.r, align.lora.alpha, align.lora.rslora, align.epochs, align.schedule) == (
        128,
        256,
        True,
        1,
        "cosine",
    )
    assert (recipe.corrupt.kind, recipe.corrupt.sigma) == ("crop" if method == "mdpo" else "noise", 45)


def test_every_override_of_the_table_is_valid() -> None:
    overrides = re.findall(r"\| `((?:align|corrupt)\.\w+=\w+)` \|", TABLE)
    assert len(overrides) == 10
    for override in overrides:
        key, value = override.split("=")
        room, name = key.split(".")
        recipe = load_recipe(ROOT / "examples" / "papers" / "huatuo_firempo.yaml", [override])
        assert getattr(getattr(recipe, room), name) == value
