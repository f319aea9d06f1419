"""What is made once a session is made once, also by workers at the same time, and again where making it failed."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from once import once


def test_two_that_ask_at_once_get_one_folder_filled_once(tmp_path: Path) -> None:
    filled: list[Path] = []

    def fill(folder: Path) -> None:
        filled.append(folder)
        time.sleep(0.2)
        (folder / "whole").write_text("yes")

    def ask(_: int) -> str:
        return (once(tmp_path / "shared")("a", fill) / "whole").read_text()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ask, range(2))) == ["yes", "yes"]
    assert filled == [tmp_path / "shared" / "a"]
    assert once(tmp_path / "shared")("b", fill) != filled[0] and len(filled) == 2


def test_what_failed_is_made_anew_from_nothing(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "half").touch()
        raise ZeroDivisionError

    made = once(tmp_path / "shared")
    with pytest.raises(ZeroDivisionError):
        made("a", half)
    assert list(made("a", lambda folder: (folder / "whole").touch()).iterdir()) == [tmp_path / "shared" / "a" / "whole"]
