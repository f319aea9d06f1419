"""Values that a cell should not hold, and those of other values that break readers."""

from __future__ import annotations

import random
from typing import Any

DEEP = 3000
TEXTS = [
    "", " ", "\0", "a\0b", "nan", "NaN", "inf", "-inf", "1e999", "-1", "0", "-0.0", "1_000", "0x1f", "9" * 5000, "٣",
    "²", "\ufeffyes", "a\u2028b", "a\u2029b", "a\x85b", "a\x0cb", "a\x1cb", "a\x0bb", "\u202eabc", "e\u0301" * 50,
    "\U0001f9ec" * 20, "\u200b", "x" * 300, "x" * 70_000, "../" * 40 + "etc/passwd", "/etc/passwd", "~nobody/x.png",
    "~", "file:²", "file:99999999999", "file", "a/b\\c", ".", "..", "/", "http://localhost/x.png", "data:image/png,AA",
    "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "'; drop table x; --", "{{7*7}}", "%s%n", "$HOME", "\\",
    "yes\nno", "a;b;c", "[", "]", "[1", "{", "{}", "[]", "null", "true", '"', "''", "[[[[", "<image>" * 3, "<video>",
    "<|vision_start|>", "[1,2,3]", "1,2,3,4", "1 2 3 4 5", "1e308,1e308,1e308,1e308", "nan,nan,nan,nan", "0,0,0,0",
    "−600/1500", "1,5/2,5", "lung+soft", "lung+soft+bone", "a/b", "5/5", "1/inf", "left", "closed", "essay", "train",
    "holdout", "Q" * 5000 + "?", "I'm sorry", "___", "XXXX", "2024-01-01", "1.5", "1e3", "NaN/NaN", "a.png;b.png",
]  # fmt: skip
OTHERS: list[Any] = [
    None, True, False, 0, -1, 1.5, 1e308, float("nan"), float("inf"), 10**300, 10**18, [], {}, [None], [[]], [1, "a"],
    {"bytes": None, "path": None}, {"path": 3}, {"side": float("nan")}, [1, 2, 3, float("nan")], ["a.png", None],
    {"a": {"b": {"c": []}}}, [0.1, 0.1, 0.2, 0.2], [1e999, 1, 1, 1],
]  # fmt: skip


def text(draw: random.Random) -> str:
    """A hostile text; one in three is noise."""
    if draw.random() < 0.33:
        return "".join(
            chr(draw.choice((draw.randrange(1, 128), draw.randrange(128, 0xD800)))) for _ in range(draw.randrange(40))
        )
    return draw.choice(TEXTS)


def value(draw: random.Random) -> Any:
    """A hostile value of any type that JSON has."""
    return text(draw) if draw.random() < 0.6 else draw.choice(OTHERS)


def raw_json(draw: random.Random) -> str:
    """JSON text that parsers stumble over, to stand for a value."""
    kinds = (
        "[" * DEEP + "]" * DEEP,
        '{"a":' * DEEP + "1" + "}" * DEEP,
        "9" * 5000,
        "1e99999",
        '"\\ud800"',
        '"\\udfff x"',
        "-",
        "[,]",
    )
    return draw.choice(kinds)
