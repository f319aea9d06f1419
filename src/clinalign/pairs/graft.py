"""A model's rewrite put back onto the answer it rewrote: only the words that differ are taken from the rewrite.

White space, typographic quotes and dashes, a capital or a full stop that a model changes in passing are no edit: there
the answer keeps its own characters, so that all text outside the edit is the answer's byte for byte.
"""

from __future__ import annotations

import re

from clinalign.language.align import blocks
from clinalign.language.swap import apply

_TYPOGRAPHY = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-"})
_WRAPPING = ('"', "'", "`")


def graft(own: str, reply: str) -> str:
    """`own` with the phrases in which `reply` differs in its words."""
    changes = []
    for start, end, first, last in blocks(own, reply):
        old, new = own[start:end], reply[first:last]
        if _plain(old) == _plain(new):
            continue
        space = old[: len(old) - len(old.lstrip())] if start < end else " " if new[:1].isspace() else ""
        new = re.sub(r"\s+", " ", new.strip())
        changes.append((start, end, space + new if new else ""))
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
    elif own[:1].islower() and reply[:1].isupper() and reply[1:2].islower():
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


def _plain(phrase: str) -> str:
    return "".join(phrase.translate(_TYPOGRAPHY).split())
