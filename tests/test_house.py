"""Each room imports only the rooms that docs/architecture.md lets it use."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "clinalign"
GROUND = {"errors", "progress", "records", "storage", "imaging", "__version__"}
MAY_USE = {
    "records": set(),
    "errors": set(),
    "progress": set(),
    "storage": {"records", "errors", "progress"},
    "imaging": {"errors", "storage"},
    "data": GROUND,
    "models": GROUND,
    "language": GROUND,
    "llm": GROUND,
    "answers": GROUND | {"models"},
    "pairs": GROUND | {"language", "llm"},
    "lesions": GROUND | {"models"},
    "objectives": set(),
    "training": GROUND | {"models", "objectives", "language"},
    "decoding": GROUND | {"models"},
    "evaluation": GROUND | {"models", "decoding", "lesions", "objectives", "language", "llm"},
    "pages": GROUND,
    "stages": GROUND | {
        "folder", "data", "models", "language", "answers", "pairs", "lesions", "training", "evaluation", "pages",
    },
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """Dotted names below `clinalign` that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("clinalign.") for alias in node.names if alias.name.startswith("clinalign.")
            }
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.add("relative")
        elif isinstance(node, ast.ImportFrom) and node.module == "clinalign":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clinalign."):
            found.add((node.module or "").removeprefix("clinalign."))
    return found


@pytest.mark.parametrize("room", sorted(MAY_USE))
def test_a_room_imports_only_what_it_may(room: str) -> None:
    files = [SOURCE / f"{room}.py"] if (SOURCE / f"{room}.py").is_file() else sorted((SOURCE / room).rglob("*.py"))
    allowed = MAY_USE[room] | {room}
    broken = [
        f"{file.relative_to(SOURCE)} imports {name}"
        for file in files
        for name in imports(file)
        if name.partition(".")[0] not in allowed
    ]
    assert not broken


def test_every_room_has_a_rule() -> None:
    rooms = {p.name for p in SOURCE.iterdir() if p.is_dir() and list(p.glob("*.py"))}
    assert rooms <= set(MAY_USE), f"rooms without a rule: {sorted(rooms - set(MAY_USE))}"


def test_an_import_that_breaks_the_rule_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from clinalign.pages import write_report\n")
    assert imports(file) == {"pages"}
