"""The shape of the source: cycles of imports, size, and words that only this project would understand.

    python benchmarks/shape.py --out shape.json

Writes `cycles` (groups of files that import one another, at the top of a file or within a function; imports for type
checking alone are `cycles_of_types`), `modules_per_kloc` (files a thousand lines), `lines_src` with `lines_src_before`
(the same at the commit `BEFORE`, read from the history where there is one), `longest_module` in lines, and
`private_words`: lines of the source, the docs and the page with a word for which the field has one of its own. The
details stand behind each count. `tests/test_shape.py` holds the numbers.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import subprocess
import tarfile
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEFORE, LINES_BEFORE = "0160bb7", 35599
"""A commit, and the lines of its source: what later ones must not outgrow."""

WORDS = {
    r"twins?": "counterfactual image, corrupted image",
    r"habits?|habitual(ly)?": "language prior",
    r"(accuracy_)?(against|with)_prior|(against|with) the prior": "prior-conflicting, prior-aligned",
    r"uncontaminated": "prior-neutral",
    r"contests?": "answer pair",
    r"intact": "style preserved",
    r"reliance": "image ablation",
    r"(flip|specificity)_removal|true removal|truly removed": "counterfactual, inpainted",
    r"taught": "distillation, teacher",
    r"by_?question": "per-item scores",
    r"speakers?": "editor backend",
    r"converse": "editing dialogue",
    r"graft(s|ed|ing)?": "apply_diff",
    r"given_pairs": "dataset pairs",
    r"gates?": "filter",
    r"ledger": "ingest index",
    r"leave_out|balanced_away": "reject, downsample",
    r"steer(s|ed|ing)?": "image-token projection",
    r"load_cold": "base",
    r"blind": "text-only",
    r"spoilt|plant(s|ed|ing)?": "injected",
    r"faults?": "error",
    r"rooms?": "package",
}
"""Pattern of a word, in any case and as a part of a name -> the field's word."""

NAMES = frozenset(
    "Asked Conversation Contest Counted Draw Fault House Itself Known Ledger Look Mistaken Place Plan Reading Repaired "
    "Silence Speaker Spoilt Steer Store Sums Terms Weights World rank_on understand swap swaps _swap cold told watch "
    "few reads sees".split()
)
"""Words that are plain English in a sentence, and private as a name in code."""

ENGLISH = re.compile(
    r"gate(_up)?_proj|\bgate (and|up|projection)\b|gradient gate|"  # a part of an MLP
    r"blind tokens?|blind_tokens|/SPEAKER/|"  # AvisC's word, and a token of transformers'
    r"\b(our|its|your|whose|user's|nobody's|own|machine's|no|of) fault\b|benchmarks/faults|"
    r"\b(no|more|much|enough|finds?|has|have|leaves?|little) room\b|\broom (for|on|in|is|left|to)\b|\w*_?ROOM\b|"
    r"\b(was|were|is|are|been|be) taught\b",
)
"""Plain English, or somebody else's name, that a pattern would take for ours."""

CLINICAL = {
    "clinalign/language/": frozenset({"intact"}),
    "clinalign/evaluation/suites/": frozenset({"intact", "plant", "room"}),
}
"""Below a folder a word of reports or of pictures: wires and bones are intact, a plant stands in a room."""


def graph(files: Mapping[str, str], *, types: bool = False) -> dict[str, set[str]]:
    """File -> the files that it imports, of the package that `files` (path -> text) hold: `clinalign/x.py` and so on.
    `types`: with the imports below `if TYPE_CHECKING`."""
    return {name: set(_imported(ast.parse(text), files, types)) - {name} for name, text in files.items()}


def _imported(tree: ast.AST, files: Mapping[str, str], types: bool) -> Iterator[str]:
    for node in _nodes(tree, types):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield from _file_of(name, files)


def _nodes(tree: ast.AST, types: bool) -> Iterator[ast.AST]:
    """Every statement: what is imported within functions too, and no expression, which imports nothing."""
    waiting = [tree]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            if isinstance(child, ast.expr):
                continue
            yield child
            if types or not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
                waiting.append(child)


def _file_of(name: str, files: Mapping[str, str]) -> list[str]:
    """The file of a dotted name: the module itself, or the one that holds the object."""
    for dotted in (name, name.rpartition(".")[0]):
        path = dotted.replace(".", "/")
        found = [file for file in (f"{path}.py", f"{path}/__init__.py") if file in files]
        if found:
            return found
    return []


def cycles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach one another (strongly connected components of more than one), in order."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            group, stack[at:] = stack[at:], []
            if len(group) > 1:
                groups.append(sorted(group))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return sorted(groups)


def source(root: Path = ROOT) -> dict[str, str]:
    """The text of every Python file below `src`, by its path there."""
    folder = root / "src"
    return {p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") for p in sorted(folder.rglob("*.py"))}


def lines_before(root: Path = ROOT) -> int:
    """The lines of source at `BEFORE`; the number that is written down where there is no history."""
    shown = subprocess.run(["git", "archive", "--format=tar", BEFORE, "src"], cwd=root, capture_output=True)
    if shown.returncode:
        return LINES_BEFORE
    with tarfile.open(fileobj=io.BytesIO(shown.stdout)) as archive:
        files = [archive.extractfile(member) for member in archive if member.name.endswith(".py")]
        return sum(file.read().count(b"\n") for file in files if file is not None)


def read_by_users(root: Path = ROOT) -> dict[str, str]:
    """What words are looked for in: the source, its recipes and page, and the docs, by path."""
    patterns = ("src/clinalign/**/*.py", "src/clinalign/**/*.yaml", "src/clinalign/pages/*", "docs/*.md", "README.md")
    paths = sorted({p for pattern in patterns for p in root.glob(pattern) if p.is_file() and p.suffix in SUFFIXES})
    return {p.relative_to(root).as_posix(): p.read_text(encoding="utf-8") for p in paths}


SUFFIXES = (".py", ".yaml", ".md", ".j2", ".html", ".css", ".js")


def private_words(texts: Mapping[str, str], words: Mapping[str, str] = WORDS) -> list[str]:
    """ "file:line: word (the field's word)" of every line with a private word. Names are read in their parts:
    `flip_taught` and `TaughtMaps` hold "taught"; what `ENGLISH` finds is taken out first."""
    patterns = {_word(p): term for p, term in words.items()}
    any_of_them = _word("|".join(words))
    found = []
    for name, text in texts.items():
        clinical = {word for folder, each in CLINICAL.items() if folder in name for word in each}
        for number, line in enumerate(text.splitlines(), 1):
            plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", ENGLISH.sub(" ", line))
            for pattern, term in patterns.items() if any_of_them.search(plain) else ():
                if (hit := pattern.search(plain)) and hit.group().lower() not in clinical:
                    found.append(f"{name}:{number}: {hit.group()} ({term})")
        found += [f"{name}:{number}: {word} (as a name)" for number, word in names_in(name, text) if word in NAMES]
    return found


def _word(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_])(?:{pattern})(?![^\W_])", re.I)


def names_in(name: str, text: str) -> list[tuple[int, str]]:
    """(line, name) of every name in Python's sense that a file of code holds."""
    if not name.endswith(".py"):
        return []
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [(token.start[0], token.string) for token in tokens if token.type == tokenize.NAME]


def shape(root: Path = ROOT) -> dict[str, object]:
    """Every number, and what is behind it."""
    files = source(root)
    lines = {name: text.count("\n") for name, text in files.items()}
    longest = max(lines, key=lines.__getitem__)
    rings, typed = cycles(graph(files)), cycles(graph(files, types=True))
    words = private_words(read_by_users(root))
    return {
        "cycles": len(rings),
        "cycles_of_types": len(typed),
        "modules_per_kloc": round(1000 * len(files) / sum(lines.values()), 2),
        "lines_src": sum(lines.values()),
        "lines_src_before": lines_before(root),
        "longest_module": lines[longest],
        "private_words": len(words),
        "modules": len(files),
        "longest": longest,
        "rings": rings,
        "rings_of_types": typed,
        "words": words,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    result = shape()
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in result.items() if not isinstance(value, list)}))


if __name__ == "__main__":
    main()
