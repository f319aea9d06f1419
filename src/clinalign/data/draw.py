"""`data.limit`: which rows of a file are read, drawn over its splits and patients."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from clinalign.data import rows
from clinalign.data.example import Filtered, Item
from clinalign.data.patients import draw_key, one_form, share_sizes
from clinalign.errors import RowError

Bucket = tuple[str, str]
"""A group of rows (a file) and the split that its rows name."""


def drawn(items: Iterable[Item], limit: int, seed: int) -> Iterator[Item]:
    """At most `limit` rows of each group, in their order: every split gets its share and one row at least, within a
    split the patients come in the order of a hash of the seed, with all their rows until the share is full.

    Filtered rows pass and do not count. Holds `limit` rows a split in memory.
    """
    heaps: dict[Bucket, list[tuple[int, int, Item]]] = {}
    counts: Counter[Bucket] = Counter()
    for order, item in enumerate(items):
        if isinstance(item.row, Filtered):
            yield item
            continue
        bucket = (item.group or item.file, _cell(item.row, "split").lower())
        counts[bucket] += 1
        heap = heaps.setdefault(bucket, [])
        heapq.heappush(heap, (-_place(item, seed), -order, item))  # the row that is drawn last is given up first
        if len(heap) > limit:
            heapq.heappop(heap)
    chosen: list[tuple[int, Item]] = []
    for bucket, size in _sizes(counts, limit).items():
        chosen += [(-order, item) for _, order, item in heapq.nlargest(size, heaps[bucket])]
    yield from (item for _, item in sorted(chosen, key=lambda entry: entry[0]))


def _sizes(counts: Counter[Bucket], limit: int) -> dict[Bucket, int]:
    """How many rows of each bucket are read."""
    sizes: dict[Bucket, int] = {}
    for group in {group for group, _ in counts}:
        mine = {bucket: count for bucket, count in counts.items() if bucket[0] == group}
        total = sum(mine.values())
        shares = share_sizes(min(limit, total), {split: count for (_, split), count in mine.items()})
        sizes |= {(group, split): size for split, size in shares.items()}
    return sizes


def _place(item: Item, seed: int) -> int:
    """Where a row's patient stands in the draw; a row without one stands for itself by its image or number."""
    patient = one_form(_cell(item.row, "patient_id")) or _cell(item.row, "image") or f"{item.file} {item.number}"
    return int.from_bytes(draw_key(patient, seed))


def _cell(row: Any, name: str) -> str:
    """A cell as text; "" where the row or the cell is none."""
    if isinstance(row, RowError):
        return ""
    try:
        return rows.text(row, name)
    except RowError:
        return ""
