"""The benchmark for a card, every part of it, on the CPU at a tiny shape: a typo must not cost a day on a GPU."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def gpu() -> Any:
    return importlib.import_module("gpu")


@pytest.fixture(scope="module")
def measured(gpu: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["gpu.py", "--out", str(out), "--shape", "tiny", "--device", "cpu", "--rounds", "1",
                                   "--minutes", "60"])  # fmt: skip
        code = gpu.main()
    found: dict[str, Any] = json.loads(out.read_text())
    assert code == 0 and found["failed"] == [], [part.get("error") for part in found["parts"].values()]
    return found


def test_packed_is_separate_in_both_types(measured: dict[str, Any]) -> None:
    parity = measured["parts"]["parity"]
    assert parity["float32"]["loss"] < 1e-5 and 0 < parity["float32"]["gradient"] < 1e-4
    packed, separate = parity["bfloat16_packed_to_float32"], parity["bfloat16_separate_to_float32"]
    assert 0 < packed["gradient"] < 2 * separate["gradient"] and packed["gradient"] < 0.2


def test_every_variant_has_time_memory_and_the_same_gradient(measured: dict[str, Any]) -> None:
    [step] = [value for value in measured["parts"]["step"].values() if isinstance(value, dict)]
    wanted = {
        "packed_cached",
        "packed",
        "dpo_cached",
        "dpo",
        "packed_cached_whole_batch",
        "published_checkpointed",
        "trl",
    }
    assert set(step["variants"]) == wanted
    for timed in step["variants"].values():
        assert timed["seconds"]["median"] > 0 and timed["peak_gb"] > 0 and timed["micro"] >= 1
    against = {name: of["against"] for name, of in step["errors"].items()}
    assert against == dict.fromkeys(["packed", "packed_cached"], "published_checkpointed") | dict.fromkeys(
        ["dpo", "dpo_cached"], "trl"
    )
    assert all(of["loss"] < 1e-5 and of["gradient"] < 1e-4 for of in step["errors"].values())
    assert step["tflops"] > 0 and step["utilisation"] is None  # a CPU has no vendor's peak
    for name in ("speedup_vs_published", "speedup_vs_published_cached", "speedup_vs_trl", "packed_peak_gb"):
        assert measured[name] > 0


def test_kernels_speed_and_decoders(measured: dict[str, Any]) -> None:
    parts = measured["parts"]
    assert parts["environment"]["product_tflops"] >= 0 and "torch" in parts["environment"]["versions"]
    kernels = {name: row for name, row in parts["attention"].items() if isinstance(row, dict)}
    assert set(kernels) == {"masked", "prefix_causal", "separate_causal", "flex"}
    assert all(row["seconds"] > 0 and row["gap_to_masked"] < 1e-5 for row in kernels.values())
    assert parts["speed"]["generation"]["tokens_a_second"] > 0 and parts["speed"]["margins"]["margins_a_second"] > 0
    decoders = {name: row for name, row in parts["decoders"].items() if isinstance(row, dict)}
    assert decoders["greedy"]["relative"] == 1
    run = [name for name, row in decoders.items() if "relative" in row]
    assert len(run) >= 6 and all("relative" in row or row["not_for_this_family"] for row in decoders.values())


def test_what_was_measured_is_there_after_every_number_and_a_failure_is_its_own(gpu: Any, tmp_path: Path) -> None:
    card = importlib.import_module("device_card")
    out, seen = tmp_path / "out.json", []

    def first(_: Any) -> Any:
        yield "one", 1
        seen.append(json.loads(out.read_text())["parts"])
        raise ValueError("broken")

    def second(_: Any) -> Any:
        yield "two", 2

    here = card.Card("tiny", "cpu", tmp_path, deadline=float("inf"))
    found = gpu.measure(here, {"first": first, "second": second}, out)
    assert seen[0]["first"]["one"] == 1 and "second" not in seen[0]
    assert "ValueError: broken" in found["parts"]["first"]["error"] and found["parts"]["second"]["two"] == 2
    assert found["failed"] == ["first"] and json.loads(out.read_text()) == found
    late = gpu.measure(card.Card("tiny", "cpu", tmp_path, deadline=0.0), {"second": second}, out)
    assert late["parts"]["second"] == {"skipped": "no time left"} and late["failed"] == []


def test_what_does_not_fit_is_tried_smaller_and_is_no_failure(gpu: Any) -> None:
    card, training = importlib.import_module("device_card"), importlib.import_module("card_training")
    here = card.Card("tiny", "cpu", Path(), deadline=float("inf"))
    tried: list[int] = []

    def prepare(micro: int) -> Any:
        tried.append(micro)
        raise torch.OutOfMemoryError

    assert training.timed(here, prepare, {}, 8, "x") == {"out_of_memory": True, "micro": 1} and tried == [8, 4, 2, 1]


def test_a_card_is_known_by_its_name_and_the_full_shape_is_the_models(gpu: Any) -> None:
    card = importlib.import_module("device_card")
    assert card.peak("NVIDIA H100 PCIe") == 756 and card.peak("NVIDIA H100 80GB HBM3") == 989
    assert card.peak("NVIDIA H200") == 989 and card.peak("NVIDIA L40S") == 362 and card.peak("Unheard of") is None
    child = importlib.import_module("child")
    here = card.Card("qwen3_vl_4b", "cuda", Path(), deadline=0.0)
    for tokens in (256, 400, 1024):
        shape = here.shape(tokens, 120)
        assert len(child.image_ids(shape)) == tokens + 2 and shape["language"] == [36, 2560] and shape["batch"] == 8
        assert shape["dtype"] == "bfloat16" and shape["fork"] == 60 and shape["device"] == "cuda"
    few = here.few_layers("float32")
    assert few["language"] == [4, 2560] and few["vision"][0] > max(few["deepstack"]) and few["dtype"] == "float32"
