"""HALLUCINOGEN (arXiv 2412.20622): questions that take a thing for granted, of images with and without it.

    hallucinogen/data/{id,loc,vc,cf}/{id,loc,vc,cf}_POPE_{adv,pop,rand}.json, COCO val2014 images
    med_hallucinogen/data/{id,loc}/{id,loc}_med_hallucinogen_data.json, NIH chest X-rays

The files are JSON Lines, whatever their name. A row has `image`, `label` and `query_1` to `query_5`, each of which
becomes an example; the general rows name the thing in `text` ("Is there a dog in the image?") and have a `question_id`,
the medical ones in `diseases`. All of it is a test set. `kind` is the attack, `finding` the thing, `answer` whether it
is there. `data.subset`: general or med; empty: whatever is there.

`PROMPTS` is a bank of our own for sets without prompts. A prompt holds the thing once and nothing of the label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from clinalign.data import cells
from clinalign.data.ingest import Item, ingest
from clinalign.data.options import DataOptions
from clinalign.data.sources.layout import field, items, root
from clinalign.errors import RowError, UsageError
from clinalign.records import Example
from clinalign.storage import Quarantine

ATTACKS = {"id": "identification", "loc": "localisation", "vc": "visual_context", "cf": "counterfactual"}
QUERIES = tuple(f"query_{n}" for n in range(1, 6))
PUBLISHED = {
    f"{attack}_POPE_{split}.json": 3000 for attack in ATTACKS for split in ("adv", "pop", "rand")
} | {f"{attack}_med_hallucinogen_data.json": 3004 for attack in ("id", "loc")}  # fmt: skip
LABELS = {"yes": "yes", "no": "no"}
_ASKED = re.compile(r"is there (?:an? |the |any )?(.+?) in the (?:image|picture)", re.I)

PROMPTS = {
    "identification": (
        "Is there any sign of {thing} in this image?",
        "Look at the image and say whether {thing} can be seen.",
        "Does this image show {thing}?",
        "Decide from the image alone: is {thing} visible?",
        "Would you say that {thing} is part of this image?",
    ),
    "localisation": (
        "In which part of the image is the {thing}?",
        "Name the region that holds the {thing}.",
        "Where does the {thing} lie?",
        "Say where one has to look for the {thing}.",
        "Describe the position of the {thing}.",
    ),
    "visual_context": (
        "What lies next to the {thing}?",
        "Describe what surrounds the {thing}.",
        "Which structures does the {thing} touch?",
        "How does the {thing} relate to what is around it?",
        "What is the nearest neighbour of the {thing}?",
    ),
    "counterfactual": (
        "What would look different if the {thing} were taken away?",
        "If the {thing} were gone, what would one notice first?",
        "How would the image change without the {thing}?",
        "What difference would it make to the image to be without the {thing}?",
        "What would be missing if the {thing} had never been there?",
    ),
}
"""Attack -> prompts that hold {thing} once."""
STYLES = {"plain": "", "chain_of_thought": " Let's think step by step.", "brief": " Answer in one short sentence."}
"""What is put behind a prompt."""


def prompts(thing: str, attack: str, style: str = "plain") -> list[str]:
    """The bank's prompts of an attack for one thing; underscores in its name become blanks."""
    name = thing.replace("_", " ")
    return [pattern.format(thing=name) + STYLES[style] for pattern in PROMPTS[attack]]


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """The sets that are there. Raises `UsageError` for a folder with neither, and for an unknown subset."""
    base = root(options)
    if options.subset not in ("", "general", "med"):
        raise UsageError(f"data.subset: '{options.subset}': source hallucinogen has general and med")
    files = [file for name in PUBLISHED for file in sorted(base.rglob(name)) if _wanted(name, options.subset)]
    if not files:
        raise UsageError(f"{base}: no {next(iter(PUBLISHED))} or id_med_hallucinogen_data.json; give the folder of it")
    given = (item for file in files for item in _queries(file))
    return ingest(given, options, folder, quarantine, base=base, published=PUBLISHED)


def _wanted(name: str, subset: str) -> bool:
    return not subset or ("med" in name) == (subset == "med")


def _queries(path: Path) -> Iterator[Item]:
    """Five items a row; rows are counted once, in the group of the first query."""
    attack = ATTACKS[path.name.partition("_")[0]]
    thing = "diseases|object" if "med" in path.name else "text"
    for item in items(path, ("image", thing, "label", "query_1"), dict):
        if not isinstance(item.row, dict):
            yield item
            continue
        row = item.row
        for number, query in enumerate(QUERIES, 1):
            group = path.name if number == 1 else f"{path.name} {query}"
            made: cells.Cells | RowError
            try:
                made = _example(row, query, attack, f"{path.stem}-{field(row, 'question_id') or item.number}-q{number}")
            except RowError as error:
                made = error
            yield Item(item.file, item.number, made, group, f"q{number}")


def _example(row: cells.Cells, query: str, attack: str, name: str) -> cells.Cells:
    asked = field(row, query)
    if not asked:
        raise RowError(query, "missing_field", f"the row has no {query}")
    label = cells.choice(row, "label", LABELS)
    if not label:
        raise RowError("label", "empty_label", "expected yes or no")
    image = field(row, "image")
    thing = _thing(row)
    nih = re.match(r"(\d{8})_\d{3}\.", Path(image).name)
    return {
        "id": name,
        "image": image,
        "question": asked,
        "answer": label,
        "task": "closed",
        "split": "test",
        "finding": thing,
        "kind": attack,
        "slots": {"presence": label},
        "patient_id": f"nih-{nih[1]}" if nih else "",
        "modality": "CR" if nih else "",
    }


def _thing(row: cells.Cells) -> str:
    """What a row asks about: `diseases` (or `object`), otherwise what `text` names."""
    named = field(row, "diseases") or field(row, "object")
    if named:
        return named.replace("_", " ")
    found = _ASKED.search(field(row, "text"))
    if not found:
        raise RowError("text", "unparsable_text", "expected 'Is there a THING in the image?'")
    return found[1]
