"""The benchmark of scale: its keys, what is written as it comes, and what it says of a part that is not there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import scale
from scales import growth


def test_results_are_written_as_they_come(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The stand-in of each part looks at what the parts before have left on disk."""
    out, seen = tmp_path / "results" / "scale.json", []
    numbers = {
        "estimates": {"estimate_time_error": 0.2, "estimate_memory_error": 0.1, "recipes": {}},
        "growth": {"rss_ratio": 1.05, "time_ratio": 0.97, "files_100k": 40, "stages": {}},
        "engines": {"ray_equal": True, "ray_differs": [], "ray_killed": 1},
        "processes": {"ddp_equal": True, "fsdp_equal": True, "deadlocks": 0},
    }

    def imported(name: str) -> Any:
        part = name.removeprefix("scales.")

        def measure(folder: Path, **more: Any) -> dict[str, Any]:
            seen.append((part, json.loads(out.read_text()) if out.is_file() else None, folder.is_dir(), more))
            return numbers[part]

        return SimpleNamespace(measure=measure)

    monkeypatch.setattr(scale, "import_module", imported)
    scale.main(["--out", str(out), "--quick", "--work", str(tmp_path)])
    assert [part for part, *_ in seen] == list(numbers) and all(there for _, _, there, _ in seen)
    assert seen[3][1]["rss_ratio"] == 1.05 and seen[3][1]["deadlocks"] is None and seen[3][3] == {"runs": 5}
    result = json.loads(out.read_text())
    assert set(scale.VALUES) <= result.keys() and result["deadlocks"] == 0 and result["ddp_equal"] is True
    assert result["ray_equal"] is True and result["engines"]["ray_killed"] == 1 and result["not_measured"] == {}


def test_one_part_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def imported(name: str) -> Any:
        asked.append(name)
        return SimpleNamespace(measure=lambda folder: {"ray_equal": True, "seconds": {"ray": 2.5}})

    monkeypatch.setattr(scale, "import_module", imported)
    scale.main(["--out", str(tmp_path / "scale.json"), "--part", "engines"])
    result = json.loads((tmp_path / "scale.json").read_text())
    assert asked == ["scales.engines"] and result["ray_equal"] is True and result["engines"]["seconds"] == {"ray": 2.5}
    assert result["rss_ratio"] is None and result["not_measured"]["growth"] == "not asked for"
    with pytest.raises(SystemExit):
        scale.main(["--out", str(tmp_path / "scale.json"), "--part", "engine"])
    assert "invalid choice: 'engine'" in capsys.readouterr().err


def test_a_part_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def imported(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(scale, "import_module", imported)
    scale.main(["--out", str(tmp_path / "scale.json"), "--work", str(tmp_path)])
    result = json.loads((tmp_path / "scale.json").read_text())
    assert result["not_measured"]["processes"] == "No module named 'scales.processes'"
    assert all(result[name] is None for name in scale.VALUES)


def test_growth_is_the_worst_stage_in_memory_and_all_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Peaks 100 -> 105 and 200 -> 240: 1.2. Seconds 1 + 2 for 10 rows and 8 + 21 for 100: 0.29 over 0.3 a row."""
    peaks = {("a", 10): (100, 1), ("a", 100): (105, 8), ("b", 10): (200, 2), ("b", 100): (240, 21)}

    def run(call: list[str], **_: Any) -> Any:
        peak, seconds = peaks[call[3], int(call[5])]
        out = f"progress\n{json.dumps({'peak_mib': peak, 'seconds': seconds})}\n"
        return SimpleNamespace(returncode=0, stdout=out, stderr="")

    monkeypatch.setattr(growth.subprocess, "run", run)
    for name in ("run-100/table.parquet", "run-100/images/1.png", "run-10/table.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = growth.measure(tmp_path, sizes=(10, 100), stages=("a", "b"))
    assert found["rss_ratio"] == 1.2 and found["rss_ratios"] == {"a": 1.05, "b": 1.2}
    assert found["time_ratio"] == pytest.approx(0.29 / 0.3, abs=1e-4) and found["files_100k"] == 1
