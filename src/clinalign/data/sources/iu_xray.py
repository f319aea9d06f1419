"""IU-Xray (OpenI): chest radiographs of one study each with their report.

    ecgen-radiology/*.xml + NLMCXR_png/CXR1_1_IM-0001-3001.png (OpenI), or annotation.json + images/ (R2Gen)

An example is a study: all its views (`data.views`) and the findings and impression as the answer. Sentences with XXXX
are cut out. OpenI has no splits and no patients: a study stands for its patient.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from clinalign.data import cells
from clinalign.data.cells import guarded
from clinalign.data.ingest import Item, ingest
from clinalign.data.options import DataOptions
from clinalign.data.sources.layout import root
from clinalign.data.sources.reports import QUESTION, findings_and_impression, report_items
from clinalign.errors import RowError, UsageError
from clinalign.records import Example
from clinalign.storage import Quarantine

PUBLISHED = {
    "reports": 3955,
    "annotation.json train": 2069,
    "annotation.json val": 296,
    "annotation.json test": 590,
}
FRONTAL = re.compile(r"\b(pa|ap|frontal)\b", re.IGNORECASE)
LATERAL = re.compile(r"\blat(eral)?\b", re.IGNORECASE)


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """Both layouts. Raises `UsageError` for a folder with neither."""
    base = root(options)
    annotation = next((p for p in (base / "annotation.json", *base.glob("*/annotation.json")) if p.is_file()), None)
    if annotation:
        given = report_items(annotation, options.views)
        images = annotation.parent / "images"
    else:
        reports = sorted(base.rglob("*.xml"), key=lambda p: (p.parent, len(p.name), p.name))
        if not reports:
            raise UsageError(f"{base}: neither annotation.json nor report *.xml; give the folder of IU-Xray")
        given = (Item(path.name, 1, guarded(partial(_study, path, options.views)), "reports") for path in reports)
        images = next((p for p in base.rglob("NLMCXR_png") if p.is_dir()), base / "images")
    where = images if images.is_dir() else base
    return ingest(given, options, folder, quarantine, base=where, published=PUBLISHED)


def _study(path: Path, views: str) -> cells.Cells:
    try:
        tree = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError, OSError) as error:
        raise RowError("row", "unparsable_row", f"not valid XML ({type(error).__name__}); export it again") from error
    uid = tree.find("uId")
    name = uid.get("id", "") if uid is not None else ""
    texts = {str(part.get("Label", "")).lower(): part.text or "" for part in tree.iter("AbstractText")}
    if not name:
        raise RowError("id", "missing_field", "the report has no uId")
    return {
        "id": name,
        "images": _images(tree, views),
        "question": QUESTION,
        "answer": findings_and_impression(texts),
        "task": "report",
        "patient_id": name,
        "modality": "CR",
        "meta": {
            "views": len(list(tree.iter("parentImage"))),
            "mesh": [m.text for m in tree.iter("major") if m.text],
        },
    }


def _images(tree: ElementTree.Element, views: str) -> list[str]:
    """File names of the views. Many captions name both views of a study: only one that names a single view tells."""
    named = [(f"{image.get('id', '')}.png", image.findtext("caption") or "") for image in tree.iter("parentImage")]
    if not named:
        raise RowError("images", "no_image", "the report has no image")
    if views == "all":
        return [name for name, _ in named]
    frontal = [name for name, caption in named if FRONTAL.search(caption) and not LATERAL.search(caption)]
    return (frontal if views == "frontal" and frontal else [name for name, _ in named])[:1]
