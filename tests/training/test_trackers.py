"""The trackers for real: what they wrote is read back. They come with the extra `log`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clinalign.training.metrics import MetricsFile, read_metrics

ROWS = [{"step": i + 1, "loss": 1.0 / (i + 1), "rewards/accuracies": 0.5, "visual/margins": None} for i in range(3)]
RUN = """
import sys
from pathlib import Path
from clinalign.training.metrics import MetricsFile
rows = [{"step": i + 1, "loss": 1.0 / (i + 1), "rewards/accuracies": 0.5, "visual/margins": None} for i in range(3)]
file = MetricsFile(Path(sys.argv[1]), [], report_to=[sys.argv[2]], label="run", settings={"method": "firempo"})
file.add(rows)
file.close()
"""


def track(tmp_path: Path, name: str, **environment: str) -> str:
    """Writes the rows with a tracker in a process of its own; returns what it printed."""
    module = "tensorboard" if name == "tensorboard" else name
    if importlib.util.find_spec(module) is None:
        pytest.fail(f"{name} is not installed; pip install 'clinalign[log]'")
    command = [sys.executable, "-c", RUN, str(tmp_path / "metrics.jsonl"), name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_metrics(tmp_path / "metrics.jsonl") == ROWS  # written whatever else there is
    return done.stdout + done.stderr


@pytest.mark.slow
def test_tensorboard(tmp_path: Path) -> None:
    track(tmp_path, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss", "rewards/accuracies", "step"]
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(row["step"], pytest.approx(row["loss"])) for row in ROWS]


@pytest.mark.slow
def test_wandb_offline(tmp_path: Path) -> None:
    track(tmp_path, "wandb", WANDB_MODE="offline", WANDB_SILENT="true")
    (log,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    content = log.read_bytes()
    assert b"rewards/accuracies" in content and b"firempo" in content


@pytest.mark.slow
def test_trackio(tmp_path: Path) -> None:
    """Trackio keeps a database a project in its folder."""
    track(tmp_path, "trackio", TRACKIO_DIR=str(tmp_path / "trackio"), HF_HUB_OFFLINE="1")
    databases = list((tmp_path / "trackio").glob("*.db"))
    assert databases and any(b"rewards/accuracies" in path.read_bytes() for path in databases)


def test_without_trackers_there_is_the_file(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl", [], report_to=[], label="x", settings={})
    file.add([dict(row) for row in ROWS])
    file.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == ROWS
