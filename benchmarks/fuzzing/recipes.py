"""Recipes and overrides with values that no setting takes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from fuzzing import cells
from fuzzing.worker import Case

VALUES = (
    ".inf -.inf .nan -1 0 1e400 99999999999999999999 1.5 true null [] {} [1] {a: 1} '' foo cuda cuda:99 cpu:x "
    "2001-01-01 2001-99-99 !!python/object:os.system !!binary|aGk= !!set{a} &a[*a] *a '\\ud800' @x %x `x` 0x10 1_0 "
    "~ - ? inf nan "
    "embedded demo ../x /nowhere ~nobody/x x:y"
).split()
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{c}: &{c} [{','.join(['*' + b] * 9)}]\n" for b, c in zip("abcdefgh", "bcdefghi")
)
WHOLE = [
    "", "\0", "[]", "- a", "a", "a: b: c", BOMB, "name: *x", "&a [*a]", "[" * 5000, "{" * 3000, "name: " + "9" * 5000,
    "? [a]\n: b", "name: !!python/object/apply:os.system [ls]", "\t", "name: 'x", "%YAML 9.9\n---\nname: x",
    "--- a\n--- b", "name: 2001-99-99", "compare: {a: {lr: .nan}}", "compare: &c {a: *c}", "data: {source: table}",
    "name: \"\\uD800\"", "model: \"a\\0b\"", "x" * 2_000_000, "evaluate: {decoders: [1, 2]}",
    "compare: [a]", "warmup: 3", "compare: {a: 1}", "compare: {a: " + BOMB.splitlines()[0] + "}", "1: 2", "null: null",
    "? \n: x", "true: x",
]  # fmt: skip


def cases(count: int, base: Path, draw: random.Random) -> Iterator[Case]:
    """Half of them files, half overrides."""
    from clinalign.recipe import Recipe

    keys = list(_keys(Recipe))
    for number in range(count):
        if number % 2:
            key, value = draw.choice(keys), _value(draw)
            key = draw.choice((key, key, key, key + "x", key + ".x", "." + key, key.upper(), "", "a." * 200 + "b"))
            given = draw.choice((f"{key}={value}", f"{key}={value}", f"{key} {value}", f"={value}", f"{key}=="))
            yield Case("recipes", 1, ["check", str(base / "fuzz.yaml"), "--", given], note=given[:80])
            continue
        path = base / "hostile.yaml"
        whole = draw.choice(WHOLE) if draw.random() < 0.4 else _file(keys, draw)
        path.write_bytes(whole if isinstance(whole, bytes) else whole.encode("utf-8", "surrogatepass"))
        yield Case("recipes", 1, ["check", str(path)], note=repr(whole[:80]))


def _value(draw: random.Random) -> str:
    return draw.choice(VALUES) if draw.random() < 0.6 else cells.text(draw)[:500].replace("\0", "")


def _file(keys: list[str], draw: random.Random) -> str | bytes:
    if draw.random() < 0.15:
        return draw.randbytes(draw.randrange(200))
    values: dict[str, Any] = {"name": "t"}
    lines = []
    for key in draw.sample(keys, draw.randrange(1, 4)):
        *parents, last = key.split(".")
        lines.append("".join(f"{'  ' * depth}{name}:\n" for depth, name in enumerate(parents)))
        lines.append(f"{'  ' * len(parents)}{last}: {_value(draw)}\n")
    return yaml.safe_dump(values) + "".join(lines)


def _keys(kind: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, info in kind.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _keys(inner, f"{above}{name}.")
        yield above + name
