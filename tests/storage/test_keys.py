"""Keys, file hashes, lists of images: what is the same, and what is seen to have changed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinalign.storage import (
    content_key,
    file_hash,
    first_changed,
    key_of,
    named_files,
    read_manifest,
    sha256,
    write_manifest,
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=5))
def test_a_key_does_not_depend_on_the_order_a_dict_was_filled_in(values: dict) -> None:
    assert key_of(values) == key_of(dict(reversed(values.items())))


@given(st.lists(PLAIN, min_size=1, max_size=4), PLAIN)
def test_one_value_more_is_another_key(values: list, more: object) -> None:
    assert key_of(values) != key_of([*values, more])


def test_values_that_look_alike_have_keys_of_their_own() -> None:
    alike = ["1", 1, 1.5, True, None, "None", [], [[]], {}, {"a": []}, ["a", "b"], ["a,b"], "\ud800", "?"]
    assert len({key_of(value) for value in alike}) == len(alike)


def test_a_file_is_read_again_when_it_changed_even_with_its_size_and_time_kept(tmp_path: Path) -> None:
    path, other = tmp_path / "a.png", tmp_path / "b.png"
    path.write_bytes(b"one")
    other.write_bytes(b"two")
    stat = path.stat()
    assert file_hash(path) == sha256(path)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    shutil.copy2(other, path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_mtime_ns == stat.st_mtime_ns and file_hash(path) == sha256(other)
    path.unlink()
    assert file_hash(path) == file_hash(tmp_path) == file_hash(Path("\0")) == ""


def test_a_setting_that_names_a_file_counts_by_what_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text("one")
    options = {"replay": str(path), "llm": {"model": "~nobody/x", "more": ["y\0", "z" * 9999, ""]}, "n": 3}
    before = named_files(options)
    assert before == [[str(path), sha256(path)]]
    path.write_text("other")
    assert named_files(options) != before


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"{name}.png").write_bytes(name.encode())
    files = [tmp_path / "images" / f"{name}.png" for name in ("b", "a", "a")]
    return write_manifest(tmp_path / "lists" / "x.sha256", tmp_path, files)


def test_a_list_of_images_is_what_sha256sum_reads(listed: Path, tmp_path: Path) -> None:
    assert list(read_manifest(listed)) == ["images/a.png", "images/b.png"]
    done = subprocess.run(["sha256sum", "-c", str(listed)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("OK") == 2


@pytest.mark.parametrize("damage", ["swapped", "deleted", "list"])
def test_a_listed_image_that_changed_is_named(damage: str, listed: Path, tmp_path: Path) -> None:
    before = content_key(listed, tmp_path)
    assert first_changed(listed, tmp_path) == ""
    a, b = tmp_path / "images" / "a.png", tmp_path / "images" / "b.png"
    if damage == "list":
        listed.write_text(listed.read_text().replace("a.png", "c.png") + "not a line\n")
        assert first_changed(listed, tmp_path) == "images/c.png"
    else:
        a.unlink() if damage == "deleted" else shutil.copyfile(b, a)
        assert first_changed(listed, tmp_path) == "images/a.png"
    assert content_key(listed, tmp_path) != before
