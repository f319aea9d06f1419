"""One owner at a time: locks, and whose partial files are whose."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import clinalign
from clinalign.errors import UsageError
from clinalign.storage import Lock, atomic, atomic_folder, remove_parts, set_aside

HOLDER = """
import sys, time
from pathlib import Path
from clinalign.storage import Lock
lock = Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def holder(folder: Path, seconds: float = 60) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLDER, str(folder), str(seconds)]
    environment = os.environ | {"PYTHONPATH": str(Path(clinalign.__file__).parents[1])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_living_owner_is_named_and_a_dead_one_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = holder(tmp_path)
    with pytest.raises(UsageError, match=f"in use by process {process.pid} on .* since 20.*choose another folder"):
        Lock(tmp_path).acquire()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / ".lock").is_file(), "a killed process takes nothing away"
    with Lock(tmp_path):
        assert f"process {process.pid}" in capsys.readouterr().err
        owner = json.loads((tmp_path / ".lock").read_text())
        assert (owner["pid"], owner["host"]) == (os.getpid(), socket.gethostname())
    assert not (tmp_path / ".lock").exists()


def test_an_owner_that_ends_gives_the_folder_back(tmp_path: Path) -> None:
    assert holder(tmp_path, 0).wait() == 0
    assert not (tmp_path / ".lock").exists()


def test_an_owner_on_another_host_is_not_taken_over(tmp_path: Path) -> None:
    owner = {"host": "elsewhere", "pid": 1, "since": "2026-01-01T00:00:00+00:00"}
    (tmp_path / ".lock").write_text(json.dumps(owner))
    with pytest.raises(UsageError, match=r"process 1 on elsewhere since 2026.*if it is gone, delete .*\.lock"):
        Lock(tmp_path).acquire()
    assert json.loads((tmp_path / ".lock").read_text()) == owner
    (tmp_path / ".lock").unlink()
    Lock(tmp_path).acquire().release()


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[1]", b'{"pid": "x"}'])
def test_a_damaged_lock_is_no_lock(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(content)
    host = b"x" in content and b"pid" in content
    if host:  # who wrote it cannot be told to be here
        with pytest.raises(UsageError, match="delete"):
            Lock(tmp_path).acquire()
    else:
        Lock(tmp_path).acquire().release()
    assert (tmp_path / ".lock").exists() == host


def test_a_process_may_hold_a_folder_twice(tmp_path: Path) -> None:
    with Lock(tmp_path):
        with Lock(tmp_path):
            pass
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()


def test_what_a_cache_writes_is_waited_for(tmp_path: Path) -> None:
    process = holder(tmp_path, 0.6)
    began = time.monotonic()
    with Lock(tmp_path, wait=True):
        assert time.monotonic() - began > 0.2 and process.wait() == 0


def test_processes_of_a_launcher_after_the_first_own_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = holder(tmp_path)
    monkeypatch.setenv("RANK", "1")
    with Lock(tmp_path):
        pass
    assert (tmp_path / ".lock").exists()
    process.kill()
    process.wait()


def test_partial_files_are_removed_but_not_those_of_another_owner(tmp_path: Path) -> None:
    for name in (".x.png.1.2.part", "images/.y.png.1.2.part", "inner/.z.1.2.part", "other/deep/.w.1.2.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("torn")
    (tmp_path / ".adapter.abc.part").mkdir()
    (tmp_path / ".adapter.abc.part" / "weights").write_text("half")
    (tmp_path / "inner" / ".lock").touch()
    (tmp_path / "other" / "deep" / "run.json").write_text("{}")
    remove_parts(tmp_path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.part"))
    assert left == ["inner/.z.1.2.part", "other/deep/.w.1.2.part"]


def test_a_folder_is_whole_or_absent_and_never_anothers(tmp_path: Path) -> None:
    target = tmp_path / "model"
    (tmp_path / ".model.part").mkdir()
    (tmp_path / ".model.part" / "theirs").write_text("x")
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as part:
        (part / "weights").write_text("half")
        raise KeyboardInterrupt
    assert not target.exists() and sorted(p.name for p in tmp_path.iterdir()) == [".model.part"]
    target.mkdir()
    with atomic_folder(target) as part:
        (part / "weights").write_text("whole")
    with pytest.raises(UsageError, match="is there already"), atomic_folder(target) as part:
        (part / "weights").write_text("another's")
    assert (target / "weights").read_text() == "whole"
    with atomic_folder(target, replace=True) as part:
        (part / "new").write_text("next")
    assert [path.name for path in target.iterdir()] == ["new"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".model.part", "model"]


def test_two_that_fill_one_folder_at_once_leave_one_whole(tmp_path: Path) -> None:
    errors: list[Exception] = []

    def fill(number: int) -> None:
        try:
            with atomic_folder(tmp_path / "model") as part:
                for name in range(5):
                    (part / str(name)).write_text(str(number))
                    time.sleep(0.005)
        except UsageError as error:
            errors.append(error)

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 3 and len({path.read_text() for path in (tmp_path / "model").iterdir()}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_set_aside_gets_the_next_free_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in ("one", "two"):
        (tmp_path / "run.json").write_text(content)
        set_aside(tmp_path / "run.json", "damaged")
    assert [(tmp_path / f"run.json.damaged-{n}").read_text() for n in (1, 2)] == ["one", "two"]
    assert capsys.readouterr().err.count("\n") == 2


def test_a_folder_where_a_file_belongs_makes_way(tmp_path: Path) -> None:
    (tmp_path / "x.json" / "inner").mkdir(parents=True)
    with atomic(tmp_path / "x.json") as temporary:
        temporary.write_text("1")
    assert (tmp_path / "x.json").read_text() == "1" and (tmp_path / "x.json.damaged-1" / "inner").is_dir()


def test_processes_of_one_number_on_two_nodes_do_not_share_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two containers on one file system count their processes from 1, both of them."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    with atomic(tmp_path / "x.png") as one:
        one.write_text("one")
        with atomic(tmp_path / "x.png") as other:
            other.write_text("other")
        assert one.read_text() == "one" and (tmp_path / "x.png").read_text() == "other"
    assert (tmp_path / "x.png").read_text() == "one" and [path.name for path in tmp_path.iterdir()] == ["x.png"]
