"""A model's rewrite put back onto the answer it rewrote: only the words that differ are taken from the rewrite.

White space, typographic quotes and dashes, a capital or a full stop that a model changes in passing are no edit: there
the answer keeps its own characters, so that all text outside the edit is the answer's byte for byte.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from itertools import accumulate

from clinalign.language.align import blocks
from clinalign.language.substitution import apply

_TYPOGRAPHY = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-"})
_WRAPPING = ('"', "'", "`")


def graft(own: str, reply: str) -> str:
    """`own` with the phrases in which `reply` differs in its words or marks."""
    a, b = _words(own), _words(reply)
    before, after = " ".join(word for word, _, _ in a), " ".join(word for word, _, _ in b)
    a_at, b_at = _begins(a), _begins(b)
    changes = []
    for start, end, first, last in blocks(before, after):
        i, j = bisect_left(a_at, start), bisect_left(a_at, end)
        k, n = bisect_left(b_at, first), bisect_left(b_at, last)
        phrase = " ".join(reply[b[k][1] : b[n - 1][2]].split()) if k < n else ""
        if i < j and k < n:
            changes.append((a[i][1], a[j - 1][2], phrase))
        elif i < j:  # a deleted word takes the space in front of it along, the first one the space behind it
            changes.append((a[i - 1][2], a[j - 1][2], "") if i else (0, a[j][1] if j < len(a) else len(own), ""))
        elif i:
            gap = " " if k and b[k][1] > b[k - 1][2] else ""
            changes.append((a[i - 1][2], a[i - 1][2], gap + phrase))
        else:
            changes.append((0, 0, phrase + (" " if n < len(b) and b[n][1] > b[n - 1][2] else "")))
    return apply(own, changes)


def graft_claim(own: str, reply: str) -> str:
    """As `graft`, for a phrase out of an answer: no quotes around it, no other capital, no full stop of the reply's."""
    reply = reply.strip()
    for mark in _WRAPPING:
        if len(reply) > 1 and reply[0] == reply[-1] == mark and own[:1] != mark:
            reply = reply[1:-1].strip()
    if not own.rstrip().endswith((".", "!", "?")):
        reply = reply.rstrip(".!?")
    if own[:1].isupper() and reply[:1].islower():
        reply = reply[:1].upper() + reply[1:]
    elif own[:1].islower() and re.match(r"A\b|[A-Z][a-z]", reply):
        reply = reply[:1].lower() + reply[1:]
    return graft(own, reply)


def find_claim(text: str, claim: str) -> tuple[int, int] | None:
    """Where an answer has the words quoted of it; case, white space and typography aside. None where it has not."""
    words = re.findall(r"\w+|[^\w\s]", claim.translate(_TYPOGRAPHY))
    while words and not words[-1][-1].isalnum() and words[-1] in ".,;:!?\"'":
        words.pop()
    while words and words[0] in "\"'":
        words.pop(0)
    if not words:
        return None
    begin = r"(?<!\w)" if words[0][0].isalnum() else ""
    finish = r"(?!\w)" if words[-1][-1].isalnum() else ""
    pattern = begin + r"\s*".join(map(re.escape, words)) + finish
    found = re.search(pattern, text.translate(_TYPOGRAPHY), re.I)
    return found.span() if found else None


def _words(text: str) -> list[tuple[str, int, int]]:
    """Words and marks in plain typography, each with its characters in the text."""
    return [(m.group(), *m.span()) for m in re.finditer(r"\w+|[^\w\s]", text.translate(_TYPOGRAPHY))]


def _begins(found: list[tuple[str, int, int]]) -> list[int]:
    """Where each word begins when they are joined by single spaces."""
    return [0, *accumulate(len(word) + 1 for word, _, _ in found)][: len(found)]
