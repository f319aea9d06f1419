"""The shape of the source: no cycle, no more lines than there were, few modules, none too long, the field's words."""

import pytest
import shape

FILES = {"clinalign/a.py": "import clinalign.b\n", "clinalign/b.py": "def f():\n    from clinalign.c import x\n"}


def test_no_two_files_import_each_other() -> None:
    assert shape.cycles(shape.graph(shape.source())) == []


def test_a_cycle_is_seen_however_it_is_made() -> None:
    edges = shape.graph(FILES | {"clinalign/c.py": "x = 1\n"})
    assert edges["clinalign/b.py"] == {"clinalign/c.py"} and shape.cycles(edges) == []
    closed = shape.graph(FILES | {"clinalign/c.py": "def g():\n    from clinalign import a\n"})
    assert shape.cycles(closed) == [["clinalign/a.py", "clinalign/b.py", "clinalign/c.py"]]
    typed = FILES | {"clinalign/c.py": "if TYPE_CHECKING:\n    from clinalign.a import y\n"}
    assert shape.cycles(shape.graph(typed)) == []
    assert len(shape.cycles(shape.graph(typed, types=True))) == 1


def test_two_cycles_are_two() -> None:
    edges = {"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"c"}, "e": {"a"}}
    assert shape.cycles(edges) == [["a", "b"], ["c", "d"]]


def test_the_source_is_no_longer_than_it_was_and_in_few_modules() -> None:
    """7 modules a thousand lines at most, none longer than 400."""
    lines = {name: text.count("\n") for name, text in shape.source().items()}
    assert sum(lines.values()) <= shape.LINES_BEFORE
    assert 1000 * len(lines) <= 7 * sum(lines.values())
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_the_lines_before_are_those_of_the_commit_where_there_is_history() -> None:
    assert shape.lines_before() == shape.LINES_BEFORE


def test_no_private_word_is_left() -> None:
    assert shape.private_words(shape.read_by_users()) == []


@pytest.mark.parametrize("line", [
    "the exact twin of it", "speaks from habit", "meta.twin", "flip_taught = 1", "class TaughtMaps:",
    "accuracy_against_prior", "open_speaker()", "graft the diff", "from x import gates", "vlm.steered()",
    "load_cold(x)", "the only room that knows", "blind = True", "class Ledger:", "planted errors", "label_fault",
])  # fmt: skip
def test_a_private_word_is_seen(line: str) -> None:
    assert len(shape.private_words({"docs/x.md": line})) == 1


@pytest.mark.parametrize("line", ["told = {}", "class World:", "def f(reads): ...", "x = Spoilt"])
def test_a_private_name_is_seen_in_code_and_is_english_in_prose(line: str) -> None:
    assert shape.private_words({"clinalign/x.py": f"{line}\n"})
    word = {"told = {}": "the two are told apart", "class World:": "World"}.get(line, "it reads a file")
    assert not shape.private_words({"docs/x.md": word})


@pytest.mark.parametrize("line", [
    "no room on the disk", "gate_proj", "not our fault", "a model that was taught captions", "the filters",
    "AvisC's blind tokens",
])  # fmt: skip
def test_plain_english_is_not(line: str) -> None:
    assert shape.private_words({"docs/x.md": line}) == []


def test_wires_may_be_intact() -> None:
    assert shape.private_words({"src/clinalign/language/x.py": 'WORDS = "intact"\n'}) == []
    assert shape.private_words({"src/clinalign/pages/x.py": 'WORDS = "intact"\n'})
