"""Items of large JSON files: the same as a whole read, wherever a chunk ends."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinalign.data import parsers
from clinalign.data.parsers import iter_json
from clinalign.errors import UsageError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=6), st.sampled_from([1, 2, 3, 7, 64]), st.sampled_from([None, 1]))
def test_an_array_in_chunks_of_any_size(tmp_path_factory, values, chunk, indent) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(values, indent=indent, ensure_ascii=False), encoding="utf-8", errors="surrogatepass")
    before, parsers.CHUNK = parsers.CHUNK, chunk
    try:
        assert [item for _, item in iter_json(path)] == json.loads(path.read_text(encoding="utf-8"))
    finally:
        parsers.CHUNK = before


def test_arrays_in_an_object_come_with_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    with gzip.open(path, "wt") as file:
        file.write('\ufeff{"train": [1, 2], "info": {"x": 1}, "test": []}\n')
    assert list(iter_json(path)) == [("train", 1), ("train", 2), ("info", {"x": 1})]


@pytest.mark.parametrize(
    "text", ["", "7", '[{"a": 1}', '[{"a": 1},]', "[1 2]", '{"a" 1}', '{"a": [1}', "[1] [2]", '[{"a": nul}]']
)
def test_what_is_not_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="a.json"):
        list(iter_json(path))
