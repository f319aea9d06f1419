"""Each room imports only the rooms that docs/architecture.md lets it use."""

import ast
import re
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
    "agent": GROUND | {"models", "language", "llm"},
    "pages": GROUND,
    "preflight": GROUND | {
        "folder", "recipe", "data", "models", "language", "llm", "pairs", "objectives", "training", "decoding",
        "evaluation",
    },
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


ONE_PLACE = {
    "log-probabilities of answers": (r"\b(score_rows|cross_entropy|nll_loss)\(", {"models/head.py", "models/tree.py"}),
    "attention rows of the decoder": (r"AttentionInterface\.register|attention_interface\(", {"models/attention.py"}),
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
    assert places(r"scaled_dot_product_attention|sdpa_attention_forward") == {"models/attention.py"}
    assert places(r"set_attn_implementation") == {"models/attention.py", "models/tower.py", "models/experts.py"}
