"""Builds the imported part of the vocabulary from other dictionaries; nothing of them is needed at run time.

    head -1 src/clinalign/language/data/concepts.tsv > src/clinalign/language/data/imported.tsv

    python -m venv vocabulary
    vocabulary/bin/pip install --no-deps radiology-semantic-dict==1.4.0 radlabels==0.2.0 radtext==1.0.dev2
    medspacy==1.3.1
    python tools/build_vocabulary.py --packages vocabulary/lib/python3.11/site-packages

Writes `data/imported.tsv` (concepts, and further wordings of the package's own) and the imported lines of
`data/headings.tsv`. Every line names its source with version, and its licence; all four are MIT. What the reviewed list
`tools/vocabulary_review.tsv` refuses is left out, with the reason that stands there.

Taken over as a wording of a known concept: phrases of two to four words of an entry of which every known phrase means
that one concept, where they end in a word that a wording of it ends in. Taken over as a concept: entries of which no
phrase is known, under the head word that they end in ("... fracture") where that names no place of its own. Fragments
("atelecta"), regular expressions, single short words and collective names ("other bone diseases") are left out.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from clinalign.language.claims import general
from clinalign.language.compat import ATTRIBUTES
from clinalign.language.graph import CONCEPTS, DATA
from clinalign.language.lexicon import canonical, meanings, singular, spelled

REVIEW = Path(__file__).with_name("vocabulary_review.tsv")
SOURCES = {
    "semantic": ("radiology-semantic-dict 1.4.0", "MIT"),
    "radlabels": ("radlabels 0.2.0", "MIT"),
    "radtext": ("radtext 1.0.dev2", "MIT"),
    "medspacy": ("medspacy 1.3.1", "MIT"),
}
GROUPS = {
    "Neuro": ("brain", "ct mri"), "Thoracic": ("lung", "xray ct"), "Cardiac": ("heart", "ct mri ultrasound"),
    "GI": ("abdomen", "ct mri ultrasound"), "GU": ("abdomen", "ct mri ultrasound"), "MSK": ("bone", "xray ct mri"),
    "Breast": ("breast", "mammography ultrasound mri"), "Vascular": ("vessel", "ct mri ultrasound"),
    "Head and Neck": ("other", "ct mri"), "Gynecologic": ("abdomen", "ct mri ultrasound"),
}  # fmt: skip
COLLECTIVE = frozenset(
    "other with and or related changes effects complications various miscellaneous trauma artifact artifacts risk "
    "risks hazards use nutrition imaging viability studies activity uptake fasting coma hypothesis disorders "
    "causes processes pathology anomalies syndromes mimics birth growth delay position injuries damage "
    "involvement".split()
)
DESCRIBED = frozenset(
    "benign normal suspicious probably highly post pure true successful false high increased elevated reduced "
    "unilateral physiologic male poor failed sterile prolonged pregnancy recurrent non subjective constitutional "
    "essential empty occult traumatic".split()
)
"""First words of names that only describe: with them a phrase would hide what has to be read by itself."""

ANYWHERE = frozenset(("fracture", "infarct", "stenosis", "thrombosis", "dissection", "dislocation", "joint effusion"))
"""Heads that can be of any place, although by themselves they mean the commonest."""

MASS_NOUNS = (
    "itis",
    "osis",
    "disease",
    "syndrome",
    "emia",
    "pathy",
    "trophy",
    "ia",
    "ism",
    "lysis",
    "failure",
    "injury",
)
SECTION_KINDS = {
    "past_medical_history": "history", "family_history": "history", "social_history": "history", "allergies": "history",
    "history_of_present_illness": "history", "medications": "history", "chief_complaint": "indication",
    "reason_for_examination": "indication", "addendum": "", "observation_and_plan": "", "imaging": "",
}  # fmt: skip

Entry = tuple[str, list[str], str, str, str]  # name, other wordings, group, modality, key of the source


def cleaned(phrase: str) -> list[str]:
    """A phrase in the lexicon's spelling, and what stands in its parentheses as a wording of its own."""
    inner = re.findall(r"\(([^)]*)\)", phrase)
    outer = re.sub(r"\([^)]*\)", " ", phrase)
    out = []
    for part in [outer, *inner]:
        words = re.sub(r"[^a-z0-9' ]+", " ", part.lower().replace("'s", "")).split()
        out.append(" ".join(spelled(w) for w in words))
    return [p for p in out if p]


def usable(phrase: str) -> bool:
    """Whether a phrase is long and clinical enough to be told from general English."""
    words = phrase.split()
    if not 1 <= len(words) <= 4 or any(w.isdigit() for w in words) or meanings(phrase):
        return False
    if any(kind in ATTRIBUTES or kind == "modality" for w in words for kind, _ in meanings(w)):
        return False  # "bibasilar atelectasis": the side has to be read by itself
    clinical = [w for w in words if w not in general() and len(w) > 3]
    return (
        len(clinical) == len(words) >= 2
        or (len(words) >= 2 and len(clinical) >= 2)
        or (len(words) == 1 and len(phrase) >= 9 and bool(clinical))
    )


def semantic(packages: Path) -> Iterator[Entry]:
    """Pathologies and findings of radiology-semantic-dict."""
    found = json.loads((packages / "radiology_semantic/data/medical_concepts.json").read_text(encoding="utf-8"))
    for row in found:
        if row["concept_type"] in ("pathology", "finding"):
            names = [p for text in (row["name"], *row.get("synonyms", [])) for p in cleaned(text)]
            group, modality = GROUPS.get(str(row.get("body_system", "")), ("other", "any"))
            yield names[0], names[1:], group, modality, "semantic"


def radlabels(packages: Path) -> Iterator[Entry]:
    """Labels of radlabels with their aliases, read off its source without importing it."""
    tree = ast.parse((packages / "radlabels/aliases.py").read_text(encoding="utf-8"))
    table = next(n.value for n in tree.body if isinstance(n, ast.AnnAssign) and n.target.id == "ALIASES")  # type: ignore[attr-defined]
    for label, row in ast.literal_eval(table).items():  # type: ignore[arg-type]
        phrases = [p for alias in row["aliases"] for p in cleaned(alias)]
        yield label.replace("_", " "), phrases, "lung", "xray ct", "radlabels"


def radtext(packages: Path) -> Iterator[Entry]:
    """Whole phrases of the CheXpert classes of radtext; its fragments and patterns are no phrases."""
    text = (packages / "radtext/resources/chexpert_phrases.yml").read_text(encoding="utf-8")
    name, keep = "", False
    for line in text.splitlines():
        if line and not line.startswith(" "):
            name, keep = line.rstrip(":").lower(), False
        elif line.strip().endswith(":"):
            keep = line.strip() == "include:"
        elif keep and "\\" not in line and " " in line.strip(" -"):
            yield name, cleaned(line.strip(" -'")), "lung", "xray ct", "radtext"


def titles(packages: Path) -> dict[str, str]:
    """Section titles of medspacy and of radtext -> kind of section."""
    found = json.loads((packages / "resources/en/section_patterns.json").read_text(encoding="utf-8"))
    rows = found["section_rules"] if isinstance(found, dict) else found
    out = {}
    for row in rows:
        kind = SECTION_KINDS.get(str(row.get("category", row.get("section_title", ""))))
        title = " ".join(re.sub(r"[^a-z ]+", " ", str(row.get("literal", "")).lower()).split())
        if kind is not None and 1 <= len(title.split()) <= 5 and len(title) > 3:
            out[title] = kind
    return out


def refused() -> dict[str, str]:
    """Phrase -> why the review refuses it."""
    lines = REVIEW.read_text(encoding="utf-8").splitlines()[1:]
    return dict(line.split("\t")[:2] for line in lines if line)


def imported(entries: Iterable[Entry]) -> list[list[str]]:
    """Lines of imported.tsv."""
    no, out, seen = refused(), [], set[str]()
    for name, others, group, modality, key in entries:
        phrases = [p for p in dict.fromkeys([name, *others]) if p not in no]
        known = {found[1] for p in phrases if (found := canonical(p, "finding"))}
        fresh = [p for p in phrases if usable(p) and p not in seen and not canonical(p)]
        if len(known) == 1 and fresh:
            concept = known.pop()
            heads = {singular(p.split()[-1]) for p in (concept, *CONCEPTS[concept].synonyms)}
            alike = [p for p in fresh if " " in p and singular(p.split()[-1]) in heads and not _vague(p)]
            out.append(_line(concept, "", alike, key))
        elif not known and name in fresh and key == "semantic" and not _vague(name):
            out.append(_concept_line(name, fresh[1:], group, modality, key))
        seen |= set(fresh)
    return [row for row in out if row[0] not in no and (row[1] or row[11])]


def _vague(name: str) -> bool:
    words = name.split()
    return bool(COLLECTIVE & set(words)) or words[0] in DESCRIBED


def _line(concept: str, group: str, phrases: list[str], key: str) -> list[str]:
    return [concept, group, *[""] * 9, "; ".join(phrases), *SOURCES[key]]


def _concept_line(name: str, others: list[str], group: str, modality: str, key: str) -> list[str]:
    words = name.split()
    head = canonical(words[-1], "finding") if len(words) > 1 else None
    places = [value for w in words[:-1] for kind, value in meanings(w) if kind == "organ"]
    noun = "m" if name.endswith(MASS_NOUNS) else "c"
    anywhere = head is not None and (not CONCEPTS[head[1]].organ or head[1] in ANYWHERE)
    is_a = head[1] if head is not None and anywhere and head[1] != "abnormality" else ""
    organ = places[0] if places else ""
    cells = [name, group, noun, is_a, organ, modality, "any", "size severity", "", "", "", "; ".join(others)]
    return [*cells, *SOURCES[key]]


def write(rows: list[list[str]], packages: Path) -> None:
    """imported.tsv and the imported lines of headings.tsv."""
    folder = Path(str(DATA))
    header = (folder / "concepts.tsv").read_text(encoding="utf-8").splitlines()[0]
    lines = sorted("\t".join(row) for row in rows)
    (folder / "imported.tsv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    own = [r for r in (folder / "headings.tsv").read_text(encoding="utf-8").splitlines() if "\tmedspacy" not in r]
    known = {row.split("\t")[0] for row in own}
    more = [f"{t}\t{kind}\t" + "\t".join(SOURCES["medspacy"]) for t, kind in sorted(titles(packages).items())]
    text = "\n".join([*own, *(row for row in more if row.split("\t")[0] not in known)]) + "\n"
    (folder / "headings.tsv").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="the site-packages folder that holds the sources")
    packages = parser.parse_args().packages
    rows = imported([*radlabels(packages), *radtext(packages), *semantic(packages)])
    write(rows, packages)
    print(f"{sum(bool(row[1]) for row in rows)} concepts, {len(rows)} lines")


if __name__ == "__main__":
    main()
