"""Stub."""

from __future__ import annotations

from clinalign.language.claims import Claim


def unlisted(text: str) -> list[Claim]:
    return []
