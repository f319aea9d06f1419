"""The outcomes of one system so far, out of a journal where there is one, and the batches that lack some."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from clinalign.progress import track
from clinalign.records import Example, Outcome, files_of
from clinalign.storage import Journal, file_hash, key_of, to_row

Which = tuple[str, str]
"""Condition and example id."""


class Found:
    """`done` holds the outcomes; `made_with` is what all of them depend on: model, options, version.

    In the last bits an outcome depends on those that are measured beside it. So batches are the same for any order of
    the examples, a batch half done is done again whole, and an outcome's key in the journal covers its whole batch.
    """

    def __init__(self, made_with: list[Any], folder: Path, journal: Journal | None, size: int, system: str) -> None:
        self.made_with, self.folder, self.journal, self.size, self.system = made_with, folder, journal, size, system
        self.done: dict[Which, Outcome] = {}

    def pending(
        self,
        conditions: Sequence[str],
        examples: Sequence[Example],
        label: str,
        beside: Callable[[list[Example]], Any],
    ) -> Iterator[tuple[list[Example], Callable[[list[Outcome]], None]]]:
        """Batches of similar length that lack an outcome, each with the function that keeps what comes of it.

        `beside`: plain values that the outcomes of a batch depend on besides its examples and the files they name.
        """
        ordered = sorted(examples, key=lambda e: (len(e.images), len(e.question), e.id))
        batches = [ordered[start : start + self.size] for start in range(0, len(ordered), self.size)]
        for batch in track(batches, f"{self.system}, {label} (batches)"):
            content = [[self._content(example) for example in batch], beside(batch)]
            which = [(condition, example.id) for condition in conditions for example in batch]
            keys = {one: key_of([self.made_with, content, *one]) for one in which}
            if self.journal is not None:
                known = {one: self.journal.get(key) for one, key in keys.items()}
                self.done |= {one: row for one, row in known.items() if row is not None}
            if not keys.keys() <= self.done.keys():
                yield batch, partial(self._keep, keys)

    def _keep(self, keys: dict[Which, str], fresh: list[Outcome]) -> None:
        new = {(o.condition, o.example_id): o for o in fresh if (o.condition, o.example_id) not in self.done}
        self.done |= new
        if self.journal is not None:
            self.journal.add({keys[one]: outcome for one, outcome in new.items()})

    def _content(self, example: Example) -> list[Any]:
        """What an example's outcomes depend on: its row, and the files that it names."""
        return [to_row(example), [file_hash(self.folder / name) for name in files_of(example)]]
