"""Assertion status against hand labels: the frozen sentences of tests/language/fixtures.

    python benchmarks/assertions.py --out results/assertions.json
    python benchmarks/assertions.py --fixture second --out results/assertions-second.json

Writes `agreement` (labels whose finding is found with the right status, a finding outside the lexicon being a miss),
`agreement_with_side`, `agreement_strict` (an open mention must be called uncertain, not just left unclaimed),
`sentences_all_right`, the same by difficulty, and every miss. The labelling convention is in the fixture's README.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter, defaultdict
from itertools import permutations
from pathlib import Path
from typing import Any

from clinalign.language import Claim, claims
from clinalign.language.graph import is_a
from clinalign.language.lexicon import canonical

FIXTURES = Path(__file__).parents[1] / "tests" / "language" / "fixtures"
FIXTURE = FIXTURES / "assertions.jsonl"
SECOND = FIXTURES / "assertions-second.jsonl"
OPEN = ("hypothetical", "conditional", "history")

Label = dict[str, Any]


def read(path: Path = FIXTURE) -> list[dict[str, Any]]:
    """The sentences with their labels."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def label_sentence(text: str, labels: list[Label]) -> list[tuple[Label, str, str | None]]:
    """Each label with the status ("unknown" outside the lexicon, "unclaimed" where nothing is said of it,
    "contradictory" where claims disagree) and the side that the labeller gives it.

    The claims compared are those of the finding itself or else of kinds of it, and those about today where there are
    any. One label of a finding is compared with all claims of it, which have to agree; several labels of a
    finding ("left
    effusion, no right effusion") are compared with its claims one to one, in the best order.
    """
    found = claims(text)
    by_name: dict[str | None, list[Label]] = defaultdict(list)
    for label in labels:
        known = canonical(label["finding"], "finding")
        by_name[known[1] if known else None].append(label)
    out: list[tuple[Label, str, str | None]] = []
    for name, wanted in by_name.items():
        if name is None:
            out += [(label, "unknown", None) for label in wanted]
            continue
        mine = [c for c in found if c.finding == name] or [c for c in found if is_a(c.finding, name)]
        mine = [c for c in mine if c.about_now] or mine
        out += [_one(wanted[0], mine)] if len(wanted) == 1 else _several(wanted, mine)
    return out


def _one(label: Label, mine: list[Claim]) -> tuple[Label, str, str | None]:
    statuses = {c.status for c in mine}
    if len(statuses) > 1:
        return label, "contradictory", None
    sides = {c.side for c in mine if c.side} or {None}
    return label, statuses.pop() if statuses else "unclaimed", sides.pop() if len(sides) == 1 else "several"


def _several(wanted: list[Label], mine: list[Claim]) -> list[tuple[Label, str, str | None]]:
    given = [(c.status, c.side) for c in mine] + [("unclaimed", None)] * len(wanted)
    orders = permutations(range(min(len(given), len(wanted) + 2)), len(wanted))

    def right(order: tuple[int, ...]) -> tuple[int, int]:
        pairs = [(label, *given[n]) for label, n in zip(wanted, order, strict=True)]
        return sum(agrees(p) for p in pairs), sum(agrees(p) and p[0]["side"] == p[2] for p in pairs)

    best = max(orders, key=right)
    return [(label, *given[n]) for label, n in zip(wanted, best, strict=True)]


def agrees(labelled: tuple[Label, str, str | None], strict: bool = False) -> bool:
    """Whether the status is right; an open mention may be left unclaimed."""
    label, status, _ = labelled
    open_mention = label["difficulty"] in OPEN and label["status"] == "uncertain"
    return status == label["status"] or (open_mention and not strict and status == "unclaimed")


def score(sentences: list[dict[str, Any]]) -> dict[str, Any]:
    """Agreement by label and by sentence, and the misses."""
    rows = [(s, label_sentence(s["text"], s["labels"])) for s in sentences]
    flat = [(s, one) for s, labelled in rows for one in labelled]
    kinds: dict[str, list[bool]] = defaultdict(list)
    for _, one in flat:
        kinds[one[0]["difficulty"]].append(agrees(one))
    misses = [
        {"id": s["id"], "text": s["text"], "finding": one[0]["finding"], "expected": one[0]["status"], "got": one[1]}
        for s, one in flat
        if not agrees(one)
    ]
    wrong_side = [
        {"id": s["id"], "text": s["text"], "finding": one[0]["finding"], "expected": one[0]["side"], "got": one[2]}
        for s, one in flat
        if agrees(one) and one[1] != "unclaimed" and one[0]["side"] != one[2]
    ]
    known = [one for _, one in flat if one[1] != "unknown"]
    return {
        "sentences": len(sentences),
        "labels": len(flat),
        "agreement": _share(agrees(one) for _, one in flat),
        "agreement_strict": _share(agrees(one, strict=True) for _, one in flat),
        "agreement_with_side": 1 - (len(misses) + len(wrong_side)) / len(flat),
        "agreement_known_findings": _share(agrees(one) for one in known),
        "sentences_all_right": _share(all(agrees(one) for one in labelled) for _, labelled in rows),
        "by_difficulty": {kind: [sum(found), len(found)] for kind, found in sorted(kinds.items())},
        "misses_by_cause": dict(Counter(m["got"] for m in misses).most_common()),
        "misses": misses,
        "wrong_side": wrong_side,
    }


def _share(values: Any) -> float:
    found = list(values)
    return sum(found) / len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fixture", choices=("first", "second"), default="first", help="which set of sentences")
    given = parser.parse_args()
    out, fixture = given.out, SECOND if given.fixture == "second" else FIXTURE
    result = {"sha256": hashlib.sha256(fixture.read_bytes()).hexdigest(), **score(read(fixture))}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"agreement {result['agreement']:.3f} on {result['labels']} labels, {len(result['misses'])} misses; {out}")


if __name__ == "__main__":
    main()
