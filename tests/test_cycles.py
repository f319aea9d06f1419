"""No file imports a file that imports it again, at its head or inside a function, directly or over others.

Imports for type checkers alone do not count, nor does a package's own `__init__` that is run on the way to a module of
it. A cycle is read out as the files on it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"


def modules(root: Path) -> dict[str, Path]:
    """Files below a folder by the name they are imported by."""
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below one, without what stands under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for other in child.orelse:
                yield other
                yield from statements(other)
        else:
            yield child
            yield from statements(child)


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """Names of the files that a file imports; of `from package import module` the module."""
    names: set[str] = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= below & known.keys()
            names |= {node.module} if below - known.keys() else set()
    return names & known.keys()


def cycles(root: Path) -> list[list[str]]:
    """Groups of files that import each other (strongly connected), each sorted by name."""
    known = modules(root)
    graph = {name: imported(path, known) for name, path in known.items()}
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        waiting = [*graph[start]]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += graph[name]
        reach[start] = seen
    groups = {tuple(sorted(b for b in reach[a] if a in reach[b])) for a in graph if a in reach[a]}
    return sorted(map(list, groups))


def test_no_file_imports_itself_over_others() -> None:
    assert cycles(SOURCE) == []


def test_a_cycle_is_seen_inside_functions_and_not_in_types_alone(tmp_path: Path) -> None:
    texts = {
        "p/__init__.py": "from p.a import x\n",
        "p/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p import d\nimport p.b\n",
        "p/b.py": "def f():\n    from p import c\n",
        "p/c.py": "def g():\n    if True:\n        from p.a import x\n",
        "p/d.py": "from p.a import x\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cycles(tmp_path) == [["p.a", "p.b", "p.c"]]
    (tmp_path / "p/c.py").write_text("")
    assert cycles(tmp_path) == []
