"""docs/architecture.md holds: its table is what files import, its names are there, its contracts are the signatures."""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from shape import graph
from shape import source as read_source

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "clinalign"
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
HEAVY = {"torch", "transformers", "peft"}


@cache
def source() -> dict[str, str]:
    return read_source()


@cache
def imports() -> dict[str, set[str]]:
    """File of the package -> the files that it imports, those below `if TYPE_CHECKING` too."""
    return graph(source(), types=True)


class Row(NamedTuple):
    """One row of the table: what a package may use, of ours and of others; `everything`: all of ours."""

    ours: frozenset[str]
    others: frozenset[str]
    everything: bool = False


def ground(document: str) -> frozenset[str]:
    """The names in the sentence that begins "The ground is", and the package itself (its version)."""
    sentence = document.split("The ground is ", 1)[1].split(":", 1)[0]
    return frozenset(re.findall(r"`(\w+)`", sentence)) | {"__init__"}


def table(document: str) -> dict[str, Row]:
    """Package -> what it may use, as the first table of the document says."""
    base = ground(document)
    lines = [line for line in document.split("\n") if re.match(r"\| `[\w/.]+` \|", line)]
    rows = {}
    for line in lines:
        package, _, cell = (part.strip() for part in line.strip("|").split(" | "))
        name = re.sub(r"\.py$|/$", "", package.strip("`"))
        names = frozenset(re.findall(r"`(\w+)`", cell))
        house = names - HEAVY
        own = name in base or cell.startswith("nothing")
        rows[name] = Row(house if own else house | base, names & HEAVY, cell.startswith("everything"))
    return rows


TABLE = table(DOCUMENT)


def package_of(file: str) -> str:
    """`clinalign/data/x.py` is of `data`, `clinalign/run.py` of `run`."""
    return file.split("/")[1].removesuffix(".py")


def broken(edges: Mapping[str, set[str]], rows: Mapping[str, Row]) -> list[str]:
    """Every import of a file that the row of its package does not name."""
    return [
        f"{file} imports {other}"
        for file, others in edges.items()
        for other in sorted(others)
        if (row := rows.get(package_of(file))) is not None
        and not row.everything
        and package_of(other) not in row.ours | {package_of(file)}
    ]


@pytest.mark.parametrize("package", sorted(TABLE))
def test_a_package_imports_only_what_its_row_names(package: str) -> None:
    assert (SOURCE / package).is_dir() or (SOURCE / f"{package}.py").is_file(), f"{package} is not there"
    assert broken(imports(), {package: TABLE[package]}) == []


def test_every_package_has_a_row_and_every_row_names_packages() -> None:
    packages = {p.name for p in SOURCE.iterdir() if p.is_dir() and list(p.glob("*.py"))}
    packages |= {p.stem for p in SOURCE.glob("*.py")} - {"__init__"}
    assert packages == set(TABLE)
    named = {name for row in TABLE.values() for name in row.ours}
    assert named - {"__init__"} <= packages


def test_an_import_that_breaks_a_row_is_seen() -> None:
    files = {
        "clinalign/x.py": "def f():\n    from clinalign.pages import write_report\n",
        "clinalign/pages/__init__.py": "",
        "clinalign/errors.py": "import clinalign.pages\n",
    }
    edges = graph(files, types=True)
    text = "| `x.py` | a | the ground |\n| `errors.py` | b | nothing |\n\nThe ground is `errors` and `pages`: so\n"
    assert broken(edges, table(text)) == ["clinalign/errors.py imports clinalign/pages/__init__.py"]
    text = text.replace(" and `pages`", "")
    assert broken(edges, table(text))[0] == "clinalign/x.py imports clinalign/pages/__init__.py"
    assert broken(edges, table(text.replace("| a | the ground", "| a | `pages`")))[1:] == []


def top_level(file: Path) -> set[str]:
    """The packages of others that a file imports when it is imported."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - {"clinalign", "__future__"} - sys.stdlib_module_names


@pytest.mark.parametrize("package", sorted(TABLE))
def test_only_rows_that_name_torch_and_its_kin_build_on_them(package: str) -> None:
    files = [SOURCE / f"{package}.py"] if (SOURCE / f"{package}.py").is_file() else (SOURCE / package).rglob("*.py")
    for file in files:
        used = top_level(file)
        assert used & HEAVY <= TABLE[package].others, file
        if package == "objectives":
            assert used <= {"torch"}, file


def test_a_table_that_says_what_is_not_is_seen() -> None:
    rows = table(DOCUMENT.replace("| `language` |", "| nothing |"))
    assert any(
        line.startswith("clinalign/evaluation") for line in broken(imports(), {"evaluation": rows["evaluation"]})
    )


# Every name that the document prints


def test_every_file_that_the_document_names_is_there() -> None:
    prose = DOCUMENT.split("```python")[0]
    paths = set(re.findall(r"`((?:\w+/)*\w+(?:\.py|/))", prose))
    paths |= {f"src/{name}" for name in re.findall(r"^# (clinalign/\S+)$", DOCUMENT, re.MULTILINE)}
    assert len(paths) > 40
    bases = (ROOT, SOURCE, SOURCE / "data")
    assert [path for path in sorted(paths) if not any((base / path).exists() for base in bases)] == []


def test_every_object_that_the_document_names_is_there() -> None:
    prose = DOCUMENT.split("```python")[0]
    names = set(re.findall(r"`(?:\w+\.)*([A-Za-z]\w+)(?:\(\))?`", prose)) - HEAVY - {"py"}
    known = {word for text in source().values() for word in re.findall(r"\b(?:def|class) (\w+)", text)}
    assert names - known - set(TABLE) == set()


# Contracts


@cache
def stubs(document: str) -> dict[str, list[ast.stmt]]:
    """File -> the functions and classes that its part of the contracts holds."""
    [block] = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    parts = re.split(r"^# (clinalign/\S+\.py)\n", block, flags=re.MULTILINE)
    return {file: ast.parse(text).body for file, text in zip(parts[1::2], parts[2::2], strict=True)}


def signatures(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name, signature) of every function and method."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from signatures(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            returns = ast.unparse(node.returns) if node.returns else ""
            yield f"{prefix}{node.name}", f"({ast.unparse(node.args)}) -> {returns}"


@pytest.mark.parametrize("file", sorted(stubs(DOCUMENT)))
def test_a_contract_is_the_signature(file: str) -> None:
    text = source().get(file, "")
    assert text, f"{file} is not there"
    known = dict(signatures(ast.parse(text).body))
    printed = dict(signatures(stubs(DOCUMENT)[file]))
    assert printed and {name: known.get(name) for name in printed} == printed


def test_a_contract_that_is_not_the_signature_is_seen() -> None:
    text = "```python\n# clinalign/language/claims.py\ndef claims(text: str) -> list[str]: ...\n```"
    [(name, printed)] = signatures(stubs(text)["clinalign/language/claims.py"])
    known = dict(signatures(ast.parse(source()["clinalign/language/claims.py"]).body))
    assert known[name] != printed and known[name].startswith("(text: str)")


# One place each

ATTENTION = {"models/attention.py", "models/tower.py"}
"""The decoder's, and that of a vision tower which is watched."""
ONE_PLACE = {
    "log-probabilities of answers": (r"\b(score_rows|cross_entropy|nll_loss)\(", {"models/head.py", "models/tree.py"}),
    "attention rows": (r"AttentionInterface\.register|attention_interface\(", ATTENTION),
    "tensors on disk": (r"\b(save_file|torch\.save|np\.savez?)\(|safetensors\.torch import", {"storage/tensors.py"}),
}
"""What each pattern finds, and where alone it may be found. (Decoders take logarithms of next-token scores, which no
answer is scored by; a vision tower's whole maps are transformers' own.)"""


def places(pattern: str) -> set[str]:
    files = {p.relative_to(SOURCE).as_posix(): p.read_text(encoding="utf-8") for p in SOURCE.rglob("*.py")}
    return {name for name, text in files.items() if re.search(pattern, text)}


@pytest.mark.parametrize("what", sorted(ONE_PLACE))
def test_there_is_one_place_for(what: str) -> None:
    pattern, allowed = ONE_PLACE[what]
    assert places(pattern) == allowed


def test_only_the_scorer_runs_packed_rows_and_only_attention_names_the_kernel() -> None:
    assert places(r"\.hidden_states\(") == {"models/tree.py"}
    assert places(r"scaled_dot_product_attention|sdpa_attention_forward") == ATTENTION
    assert places(r"set_attn_implementation") == {"models/attention.py", "models/tower.py", "models/teachers.py"}
