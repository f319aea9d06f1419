"""Out of memory in any stage becomes a smaller batch and equal tables, or one line with the setting that fits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from once import Once

from clinalign.errors import UsageError
from clinalign.folder import Run
from clinalign.models.memory import Shrinking, out_of_memory
from clinalign.recipe import load_recipe
from clinalign.records import Answer, Measurement, Outcome
from clinalign.run import execute
from clinalign.storage import read_table, sha256

pytestmark = pytest.mark.usefixtures("no_figures")
SMALL = [
    "data.splits={align: 5, test: 3}",
    "align.max_steps=2",
    "align.batch=4",
    "compare={}",
    "evaluate.resamples=200",
    "evaluate.permutations=200",
]


def run(out: Path, *more: str) -> Path:
    execute(Run(load_recipe("phantom", [*SMALL, f"align.cache={out.parent / out.name}-cache", *more]), out))
    return out


@pytest.fixture(scope="module")
def whole(once: Once) -> Path:
    """A run that lacked no memory, which several workers may read at once."""
    return once("whole", lambda folder: run(folder / "run")) / "run"


def limited(call: Callable[..., Any], most: int, size: Callable[..., int]) -> Callable[..., Any]:
    """The call on a device that holds no more than `most` at once."""

    def limit(*given: Any, **named: Any) -> Any:
        if size(*given, **named) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return call(*given, **named)

    return limit


def limit_answers(patch: pytest.MonkeyPatch, most: int) -> None:
    from clinalign.models import generate

    greedy = generate.greedy
    patch.setattr(generate, "greedy", limited(greedy, most, lambda vlm, prompts, batch_size, **_: batch_size))


def limit_training(patch: pytest.MonkeyPatch, most: int) -> None:
    from clinalign.training.step import PackedSteps

    patch.setattr(PackedSteps, "loss", limited(PackedSteps.loss, most, lambda self, indexes: len(indexes)))


def limit_reference(patch: pytest.MonkeyPatch, most: int) -> None:
    from clinalign.training.reference import Reference

    patch.setattr(Reference, "_compute", limited(Reference._compute, most, lambda self, samples, plan: len(samples)))


def limit_margins(patch: pytest.MonkeyPatch, most: int) -> None:
    from clinalign.measuring import evidence

    patch.setattr(evidence, "margins", limited(evidence.margins, most, lambda vlm, asked, batch_size: batch_size))


def limit_forward(patch: pytest.MonkeyPatch, most: int) -> None:
    """Every forward of the language model, whoever asks for it: more rows than `most` fit nowhere."""
    from clinalign.models.vlm import VLM

    rows: Callable[..., int] = lambda self, ids, *given, **named: len(ids)  # noqa: E731
    patch.setattr(VLM, "hidden_states", limited(VLM.hidden_states, most, rows))


LIMITS = {"answers": limit_answers, "training": limit_training, "reference": limit_reference, "margins": limit_margins}


@pytest.mark.parametrize("where", [*(pytest.param(name, marks=pytest.mark.slow) for name in LIMITS), "every forward"])
def test_a_run_that_nearly_fits_ends_with_equal_tables(
    where: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (LIMITS | {"every forward": limit_forward})[where](monkeypatch, 3)
    out = run(tmp_path / "run")
    assert "out of memory; going on with " in capsys.readouterr().err
    for table, kind in (("answers.parquet", Answer), ("outcomes.parquet", Outcome)):
        mine, other = read_table(out / table, kind), read_table(whole / table, kind)
        assert [(row.example_id, row.text) for row in mine] == [(row.example_id, row.text) for row in other]
    assert sha256(out / "corrupted_pairs.parquet") == sha256(whole / "corrupted_pairs.parquet")
    measured = (read_table(folder / "measurements.parquet", Measurement) for folder in (out, whole))
    assert [(m.example_id, m.system, m.name) for m in next(measured)] == [
        (m.example_id, m.system, m.name) for m in next(measured)
    ]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("answers", "answer.batch_size=1; lower answer.max_new_tokens"),
        ("training", "align.micro_batch=1; set align.gradient_checkpointing=true"),
        ("margins", "evaluate.batch_size=1; lower evaluate.max_new_tokens"),
    ],
)
def test_what_does_not_fit_at_all_is_one_line(
    where: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LIMITS[where](monkeypatch, 0)
    with pytest.raises(UsageError, match="out of memory with ") as error:
        run(tmp_path / "run")
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_are_out_of_memory(error: Exception, is_one: bool) -> None:
    assert out_of_memory(error) is is_one


def test_a_size_that_did_not_fit_is_not_tried_again_and_other_errors_pass() -> None:
    tried: list[int] = []

    def call(size: int) -> int:
        tried.append(size)
        if size > 4:
            raise RuntimeError("out of memory")
        return size

    shrink = Shrinking("x.batch", "buy more")
    assert shrink(call, 20) == 2 and tried == [20, 10, 5, 2]
    assert shrink(call, 20) == 2 and tried[4:] == [2]
    with pytest.raises(RuntimeError, match="shapes"):
        shrink(lambda size: (_ for _ in ()).throw(RuntimeError("shapes")), 4)
