"""`unpacked: true` runs a whole recipe, from ingest to page, on a family that is not known; the packed run agrees."""

from pathlib import Path

import pytest

from clinalign.decoding import decode
from clinalign.errors import UsageError
from clinalign.folder import Run
from clinalign.models import load_vlm
from clinalign.models.families import FAMILIES
from clinalign.recipe import load_recipe
from clinalign.records import Answer, Measurement, Outcome, Pair
from clinalign.run import execute
from clinalign.storage import read_table
from clinalign.training.metrics import read_metrics

SMALL = [
    "data.splits={align: 4, test: 2}",
    "align.max_steps=2",
    "align.batch=4",
    "align.lora.dropout=0",
    "compare={}",
    "evaluate.flip_limit=4",
    "evaluate.resamples=200",
    "evaluate.permutations=200",
]


def run(out: Path, *more: str) -> Path:
    execute(Run(load_recipe("phantom", [*SMALL, f"align.cache={out / 'cache'}", *more]), out / "run"))
    return out / "run"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The embedded LLaVA, packed; and with all that is known of its family forgotten."""
    packed = run(tmp_path_factory.mktemp("packed"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(FAMILIES, "llava")
        return packed, run(tmp_path_factory.mktemp("unpacked"), "unpacked=true")


@pytest.mark.slow
def test_the_same_answers_pairs_and_losses(runs: tuple[Path, Path]) -> None:
    answers, pairs, losses = ([], [], [])
    for folder in runs:
        answers.append([(a.example_id, a.token_ids) for a in read_table(folder / "answers.parquet", Answer)])
        pairs.append([(p.id, p.chosen, p.rejected) for p in read_table(folder / "pairs.parquet", Pair)])
        losses.append([row["loss"] for row in read_metrics(folder / "metrics.jsonl")])
    assert answers[0] == answers[1] and len(answers[0]) > 8
    assert pairs[0] == pairs[1] and pairs[0]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3) and len(losses[0]) == 2


@pytest.mark.slow
def test_the_same_measurements_and_a_page(runs: tuple[Path, Path]) -> None:
    packed, unpacked = (
        {(o.system, o.example_id, o.condition): o for o in read_table(folder / "outcomes.parquet", Outcome)}
        for folder in runs
    )
    assert packed.keys() == unpacked.keys()
    assert all(packed[key].text == unpacked[key].text for key in packed if key[0] == "base")
    one, other = (
        {
            (m.name, m.example_id, m.condition, m.level): m.value
            for m in read_table(folder / "measurements.parquet", Measurement)
            if m.system == "base" and m.value is not None
        }
        for folder in runs
    )
    margins = [key for key in one if key[0] == "margin"]
    assert len(margins) > 2 and all(one[key] == pytest.approx(other[key], abs=0.05) for key in margins)
    assert any(key[0] == "p_yes" for key in one)
    page = (runs[1] / "report.html").read_text(encoding="utf-8")
    assert "FiRe-MPO" in page or "firempo" in page


def test_what_needs_the_familys_insides_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(FAMILIES, "llava")
    vlm = load_vlm("embedded", unpacked=True)
    with pytest.raises(UsageError, match="decoder 'vcd' needs a family that is known"):
        decode(vlm, [("Is there a nodule?", [])], "vcd")
    for setting, message in (("evaluate.grounding=true", "evaluate.grounding"), ("align.distill={}", "align.distill")):
        with pytest.raises(UsageError, match=message):
            run(tmp_path / setting.partition("=")[0], "unpacked=true", setting)


def test_a_known_family_may_be_unpacked_too() -> None:
    """Plain passes of its own functions: the same greedy answers and the same numbers."""
    packed, unpacked = load_vlm("embedded"), load_vlm("embedded", unpacked=True)
    prompts = [("Is there a pleural effusion?", []), ("Where is the nodule?", [])]
    assert packed.generate(prompts) == unpacked.generate(prompts)
