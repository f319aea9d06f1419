"""Claims, judge and labels against hand-labelled fixtures and real reports.

    python benchmarks/language.py --out results/language.json [--fixtures DIR]

`DIR` (default `tests/fixtures/language`) holds any of `blind_*.jsonl` (sentences with labels), `judge_*.jsonl`
(question, truth, answer and what a reader makes of it) and `editor_*.jsonl`. The reports are those of the packages
`radlabels` (MIT) and `torchxrayvision` (OpenI, CC BY-NC-ND), fetched through pip into the cache and only read.

Writes `findings_right` (share of labelled findings with the right status), the same `by_modality`, `side` and
`measurement` (share right among the findings found for which the label or, for the side, the claim names one),
`judge_right` and `judge_decided` (of the triples that can be decided), `judge_wrong` (of all), `side_variants_wrong`
(of 480 generated questions), `wrap_changed` (of 1 000 reports), `indication_added` (labels that histories and
indications alone give), `openi_f1` and `seconds_1000`.
"""

from __future__ import annotations

import argparse
import json
import textwrap
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from clinalign.data.sources.fetch import Package, fetch
from clinalign.language import Claim, claims, judge
from clinalign.language.claims import unlisted
from clinalign.language.graph import is_a
from clinalign.language.lexicon import canonical, meanings, singular
from clinalign.language.reports import chexpert
from clinalign.language.tokens import measured, tokenise
from clinalign.storage import shared_folder

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures" / "language"
RADLABELS = Package(
    "radlabels==0.2.0",
    "radlabels-0.2.0-py3-none-any.whl",
    "80af1df92ffd39925563079b9efed283b85196436f152cb33025ece42371fade",
    1,
)
ACCEPTED = {
    "correct": {"correct"},
    "incorrect": {"incorrect", "abstained"},
    "partial": {"incomplete", "abstained"},
    "ambiguous": {"undecided", "abstained", "incomplete"},
}
"""What a reader makes of an answer -> the judge's verdicts that agree with it. An abstention is no right answer, and
never a "no"."""

Label = dict[str, Any]
Row = dict[str, Any]


def read(folder: Path, prefix: str) -> list[Row]:
    """The rows of every file of the folder whose name begins with the prefix."""
    files = sorted(folder.glob(f"{prefix}_*.jsonl"))
    return [json.loads(line) for f in files for line in f.read_text(encoding="utf-8").splitlines() if line.strip()]


def match(label: Label, found: list[Claim]) -> list[Claim]:
    """The claims that speak of a labelled finding: of the finding itself or of a kind of it; a denial may be of
    something broader. A finding that the concept graph lacks is compared by its words."""
    known = canonical(label["finding"], "finding")
    if known is None:
        wanted = {singular(w) for w in label["finding"].lower().split()}
        return [c for c in found if wanted <= {singular(w) for w in c.finding.lower().split()}]
    exact = [c for c in found if c.finding == known[1]]
    kinds = exact or [c for c in found if is_a(c.finding, known[1])]
    if not any(c.about_now for c in kinds) and label["status"] == "absent":
        kinds = [c for c in found if c.status == "absent" and is_a(known[1], c.finding)] or kinds
    kinds = [c for c in kinds if c.about_now] or kinds
    return [c for c in kinds if label["side"] and c.side == label["side"]] or kinds


def status(found: list[Claim]) -> str | None:
    """The one status of some claims; None where there is none or they differ."""
    said = {"history" if c.temporality == "history" else c.status for c in found}
    return said.pop() if len(said) == 1 else None


def size_right(label: Label, claim: Claim) -> bool:
    """Whether a claim has the labelled size, in words or as a measurement."""
    given = measured(label["size"])
    if given:
        return claim.measurement == given[0]
    wanted = {value for _, value in meanings(label["size"])}
    return bool(wanted & {claim.size, claim.value("severity")})


def on_sentences(rows: list[Row]) -> tuple[dict[str, Any], list[Row]]:
    """The shares of right labels, and what is wrong."""
    right: dict[str, list[bool]] = defaultdict(list)
    sides, sizes, misses = [], [], []
    for row in rows:
        found = claims(row["text"]) + unlisted(row["text"])
        for label in row["gold"]:
            mine = match(label, found)
            got = status(mine)
            right[row["mod"]].append(got == label["status"])
            if got != label["status"]:
                misses.append({"id": row["id"], "text": row["text"], "label": label, "got": got})
                continue
            said = {c.side for c in mine} - {None} or {None}
            if label["side"] or said != {None}:
                sides.append(said == {label["side"]})
                if not sides[-1]:
                    misses.append({"id": row["id"], "text": row["text"], "label": label, "got": sorted(map(str, said))})
            if label["size"]:
                sizes.append(any(size_right(label, c) for c in mine))
                if not sizes[-1]:
                    misses.append({"id": row["id"], "text": row["text"], "label": label, "got": "size"})
    every = [one for values in right.values() for one in values]
    shares = {
        "findings_right": share(every),
        "by_modality": {name: share(values) for name, values in sorted(right.items())},
        "side": share(sides),
        "measurement": share(sizes),
    }
    return shares, misses


def share(values: list[bool]) -> float | None:
    """The share of what is true; None of nothing."""
    return sum(values) / len(values) if values else None


def task_of(row: Row) -> str:
    """Closed where the truth is yes or no, otherwise open."""
    return "closed" if row["truth"].lower() in ("yes", "no") else "open"


def on_triples(rows: list[Row]) -> tuple[dict[str, Any], list[Row]]:
    """How the judge agrees with a reader, and where it does not."""
    right, wrong, decided, misses = [], [], [], []
    for row in rows:
        found = judge(row["question"], row["answer"], row["truth"], task_of(row))
        agrees = found.verdict in ACCEPTED[row["gold"]]
        wrong.append(not agrees and found.verdict != "undecided")
        if row["gold"] != "ambiguous":
            right.append(agrees)
            decided.append(found.verdict != "undecided")
        if not agrees:
            misses.append({**row, "got": found.verdict, "reason": found.reason})
    return {"judge_right": share(right), "judge_wrong": share(wrong), "judge_decided": share(decided)}, misses


PLACES = {
    "on the left": "on the right", "on the right": "on the left", "in the left lung": "in the right lung",
    "in the left upper lobe": "in the right upper lobe", "in the right lower lobe": "in the right upper lobe",
    "in the right middle lobe": "in the left lower lobe", "at the left base": "at the right base",
    "at the right apex": "at the left apex",
}  # fmt: skip
SIZES = {"small": "large", "large": "small", "tiny": "large", "massive": "small"}
FOUND = (
    "effusion",
    "pneumothorax",
    "consolidation",
    "nodule",
    "mass",
    "opacity",
    "fracture",
    "hematoma",
    "cyst",
    "lesion",
)


def variants() -> Iterator[tuple[str, str]]:
    """480 closed questions that name a side, a lobe or a size, each with an answer that names another; truth: yes."""
    asks = ("Is there a {f} {p}?", "Is a {f} seen {p}?", "Does the image show a {f} {p}?")
    says = ("There is a {f} {p}.", "A {f} is seen {p}.", "The image shows a {f} {p}.")
    for finding, (asked, said), n in product(FOUND, PLACES.items(), range(3)):
        yield asks[n].format(f=finding, p=asked), says[n].format(f=finding, p=said)
    for finding, (asked, said), n in product(FOUND, SIZES.items(), range(3)):
        for end in ("", " in the chest"):
            question = asks[n].format(f=f"{asked} {finding}", p=end.strip()).replace(" ?", "?")
            yield question, says[n].format(f=f"{said} {finding}", p=end.strip()).replace(" .", ".")


def side_variants_wrong() -> int:
    """How many of the generated answers count as right although they name another side, lobe or size."""
    return sum(judge(question, answer, "yes", "closed").correct is True for question, answer in variants())


def reports(cache: Path) -> list[str]:
    """The 1 000 MIMIC-like reports of radlabels."""
    with zipfile.ZipFile(fetch(RADLABELS, cache)) as wheel:
        names = sorted(n for n in wheel.namelist() if "/synthetic_reports/" in n and n.endswith(".txt"))
        return [wheel.read(name).decode("utf-8") for name in names]


def wrapped(text: str, width: int = 80) -> str:
    """The text with its lines wrapped at a width; indentation and blank lines stay."""
    return "\n".join("\n".join(textwrap.wrap(line, width)) or line for line in text.splitlines())


def labels(text: str) -> list[tuple[Any, ...]]:
    """What the labeller reads in a text, without the places of the words."""
    slots: Callable[[Claim], Any] = lambda c: sorted((k, m.value) for k, ms in c.slots.items() for m in ms)  # noqa: E731
    return [(c.finding, c.status, c.section, c.temporality, slots(c)) for c in claims(text)]


def asides(text: str) -> str:
    """The histories and indications of a report alone, each with a heading."""
    tokens = tokenise(text)
    parts = []
    for (first, last), section in zip(tokens.sentences, tokens.sections):
        if section in ("history", "indication"):
            body = text[tokens.spans[first][0] : tokens.spans[last - 1][1]]
            parts.append(f"{section.upper()}: {body}.")
    return "\n".join(parts)


def on_reports(texts: list[str]) -> dict[str, Any]:
    """The numbers of whole reports."""
    start = time.process_time()
    read_as = [labels(text) for text in texts]
    seconds = (time.process_time() - start) * 1000 / len(texts)
    return {
        "wrap_changed": sum(labels(wrapped(text)) != found for text, found in zip(texts, read_as)),
        "indication_added": sum(len(chexpert(asides(text))) for text in texts),
        "seconds_1000": seconds,
    }


def openi(cache: Path) -> dict[str, float]:
    """Labeller against the MeSH tags of OpenI; see benchmarks/editor.py."""
    import editor

    return editor.on_tags(editor.read_reports(cache))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fixtures", type=Path, default=FIXTURES, help="folder of blind_*, judge_* and editor_*.jsonl")
    parser.add_argument("--misses", action="store_true", help="print what is wrong")
    parser.add_argument(
        "--cache", default="", help="folder of downloads; default: $CLINALIGN_CACHE or ~/.cache/clinalign"
    )
    given = parser.parse_args()
    cache = shared_folder(given.cache) / "reports"
    sentences, misses = on_sentences(read(given.fixtures, "blind"))
    triples, misjudged = on_triples(read(given.fixtures, "judge"))
    result = sentences | triples | {"side_variants_wrong": side_variants_wrong()}
    result |= on_reports(reports(cache)) | {"openi_f1": openi(cache)["f1"]}
    if given.misses:
        print(*(json.dumps(row, ensure_ascii=False) for row in misses + misjudged), sep="\n")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
