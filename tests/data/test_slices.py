"""Questions about whole volumes: slices as images, masks slice by slice, captions, what is quarantined."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import dicoms
import numpy as np
import pytest

from clinalign.data import read
from clinalign.data.options import DataOptions
from clinalign.data.phantom.volume import LUNG_WINDOW, render_volume, sample_volume, window
from clinalign.data.phantom.volume_questions import SLICES
from clinalign.imaging.images import read_image, read_mask
from clinalign.records import PLACE, Example, files_of, without_finding
from clinalign.storage import Quarantine, read_table, write_table

sys.path.insert(0, str(Path(__file__).parents[1] / "imaging"))
from test_series import series  # noqa: E402

DEPTH = 9


def volumes(folder: Path) -> dict[str, Any]:
    """One body of nine slices as a DICOM series, NIfTI and NRRD; a lesion, label 2, on slices 3 and 4 from the feet."""
    import nibabel
    import nrrd

    rng = np.random.default_rng(0)
    values = rng.integers(200, 600, (DEPTH, 12, 10))
    labels = np.zeros(values.shape, dtype=np.uint8)
    labels[3:5, 4:7, 2:5], labels[6, 0, 0] = 2, 1
    series(folder / "ct", values)
    axes, origin = np.diag([0.5, 0.6, 2.5]), np.array([-10.0, -20.0, 100.0])
    header = {"space": "left-posterior-superior", "space directions": axes, "space origin": origin}
    nrrd.write(str(folder / "ct.nrrd"), (values * 2 - 1000).transpose(2, 1, 0).astype(np.int16), header)
    nrrd.write(str(folder / "mask.nrrd"), labels.transpose(2, 1, 0), header)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes, origin
    matrix[:2] *= -1
    for name, array in (("ct", values * 2 - 1000), ("mask", labels)):
        image = nibabel.Nifti1Image(array.transpose(2, 1, 0).astype(np.int16), matrix)
        nibabel.save(image, folder / f"{name}.nii.gz")
    return {"values": values, "labels": labels}


def ingest(folder: Path, rows: list[dict[str, Any]], **options: Any) -> tuple[list[Example], list[dict[str, Any]]]:
    rows = [{"question": "Is there a nodule?", "answer": "yes"} | row for row in rows]
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted({name for row in rows for name in row}))
        writer.writeheader()
        writer.writerows(rows)
    given = {"source": "table", "path": str(folder / "table.csv"), "key_file": str(folder / "key"), "leaks": "allow"}
    (folder / "key").write_text("k" * 32)
    quarantine = Quarantine(folder / "out" / "quarantine.jsonl")
    found = read(DataOptions(**(given | options)), folder / "out", quarantine)
    return found, quarantine.rows


@pytest.mark.parametrize(("image", "mask"), [
    ("ct", "mask.nrrd"), ("ct", "mask.nii.gz"), ("ct.nrrd", "mask.nrrd"), ("ct.nii.gz", "mask.nii.gz"),
])  # fmt: skip
def test_a_volume_becomes_slices_with_the_lesion_on_those_it_crosses(tmp_path: Path, image: str, mask: str) -> None:
    truth = volumes(tmp_path)
    row = {"image": image, "mask": mask, "mask_value": 2, "label": "nodule", "modality": "CT", "patient_id": "p"}
    [example], quarantined = ingest(
        tmp_path, [row], slices=20, captions="SLICE {number}", intro="A CT.", window="medgemma"
    )
    assert not quarantined and len(example.images) == DEPTH
    hounsfield = truth["values"][::-1] * 2 - 1000  # from the head down
    for number, name in enumerate(example.images):
        shown = read_image(tmp_path / "out" / name)
        expected = np.round((np.clip(hounsfield[number], -135, 215) + 135) / 350 * 255)
        assert (shown[..., 1] == expected).all(), number
    assert [(r.label, r.image) for r in example.regions] == [("nodule", 4), ("nodule", 5)]
    for region in example.regions:
        inside = read_mask(tmp_path / "out" / str(region.mask))
        assert (inside == (truth["labels"][::-1][region.image] == 2)).all()
    assert example.prompt == "A CT." + "".join(f"{PLACE}SLICE {n}" for n in range(1, 10)) + "\n\nIs there a nodule?"
    write_table(tmp_path / "table.parquet", [example], Example)
    [again] = read_table(tmp_path / "table.parquet", Example)
    assert again == example and again.prompt == example.prompt
    written = " ".join(p.read_text(errors="replace") for p in (tmp_path / "out").rglob("*.json*")) + json.dumps(
        example.meta
    )
    assert "HOSP" not in written and "Mustermann" not in written


def test_fewer_slices_than_the_volume_has(tmp_path: Path) -> None:
    """Nine slices, at most three: 3, 5 and 8 from the head (round(i / 3 * 8)), which are 5, 3 and 0 from the feet."""
    volumes(tmp_path)
    base = {"image": "ct.nrrd", "label": "nodule", "modality": "CT"}
    rows = [base | {"mask": "mask.nrrd", "mask_value": 2}, base | {"mask": "mask.nrrd", "mask_value": 1}, base]
    found, quarantined = ingest(tmp_path, rows, slices=3)
    assert [[meta["slice"] for meta in e.meta["volume"]] for e in found] == [[5, 3, 0]] * 2
    assert [[r.image for r in e.regions] for e in found] == [[1], []] and not found[0].captions
    assert found[0].prompt == "Is there a nodule?"
    assert [(q["row"], q["field"], q["reason"]) for q in quarantined] == [(2, "mask", "lesion_not_shown")]


def test_a_row_with_a_frame_and_a_recipe_of_one_slice_show_one(tmp_path: Path) -> None:
    volumes(tmp_path)
    rows = [{"image": "ct", "frame": 7}, {"image": "ct", "mask": "mask.nii.gz", "mask_value": 2}]
    several, _ = ingest(tmp_path, rows[:1], slices=5)
    single, _ = ingest(tmp_path, rows)
    assert [len(e.images) for e in several + single] == [1, 1, 1]
    assert several[0].images == single[0].images and single[1].meta["volume"][0]["slice"] in (3, 4)


def test_what_a_volume_of_slices_does_not_take(tmp_path: Path) -> None:
    volumes(tmp_path)
    (tmp_path / "empty").mkdir()
    rows = [
        {"image": "ct", "box": "1,1,3,3"},
        {"image": "empty"},
        {"image": "ct.nrrd", "counterfactual": "ct"},
        {"image": "ct"},
    ]
    found, quarantined = ingest(tmp_path, rows, slices=DEPTH)
    assert [(q["row"], q["reason"]) for q in quarantined] == [(1, "no_slice"), (2, "missing_image")]
    assert [e.row for e in found] == [3, 4] and found[0].counterfactuals == found[1].images
    assert without_finding(found[0]) == found[1].images and not without_finding(found[1])
    with pytest.raises(ValueError, match="number"):
        DataOptions(captions="SLICE {k}")
    with pytest.raises(ValueError, match="intro"):
        DataOptions(intro="A CT.")


def test_a_file_of_many_frames_shows_them(tmp_path: Path) -> None:
    frames = np.arange(6, dtype=np.int16)[:, None, None].repeat(8, 1).repeat(8, 2) * 100
    dicoms.make(tmp_path / "cine.dcm", frames)
    dicoms.make(tmp_path / "one.dcm", frames[0])
    rows = [{"image": "cine.dcm"}, {"image": "one.dcm"}, {"image": "cine.dcm", "frame": 3}]
    rows += [{"image": "cine.dcm", "mask": "mask.nrrd"}]
    volumes(tmp_path)
    found, quarantined = ingest(tmp_path, rows, slices=3, captions="FRAME {number}", window="0/500")
    assert [len(e.images) for e in found] == [3, 1, 1] and [bool(e.captions) for e in found] == [True, False, False]
    shown = [int(read_image(tmp_path / "out" / name)[0, 0, 0]) for name in found[0].images]
    assert shown == [102, 153, 255], "frames 2, 3 and 5 of 0 to 5"
    assert found[2].images == found[0].images[1:2] and [q["reason"] for q in quarantined] == ["mask_size"]


def test_a_phantom_volume_is_whole(tmp_path: Path) -> None:
    """Slices are the drawn ones, the mask is where the counterfactual differs, and every file is there."""
    options = DataOptions(source="phantom_volume", splits={"align": 6, "test": 2}, captions="SLICE {number}")
    examples = read(options, tmp_path, Quarantine(tmp_path / "q.jsonl"))
    assert [e.split for e in examples] == ["align"] * 6 + ["test"] * 2 and {e.answer for e in examples} == {"yes", "no"}
    for example in examples:
        assert all((tmp_path / name).is_file() for name in files_of(example)) and len(example.images) == SLICES
        assert example.prompt.count(PLACE) == SLICES and example.prompt.endswith("\n\n" + example.question)
        assert bool(example.regions) == (example.answer == "yes") == bool(example.counterfactuals)
        masks = {r.image: read_mask(tmp_path / str(r.mask)) for r in example.regions}
        for number, name in enumerate(without_finding(example)):
            shown, without = read_image(tmp_path / example.images[number]), read_image(tmp_path / name)
            assert not (shown != without)[~masks.get(number, np.zeros(shown.shape[:2], bool))].any()
            assert (number in masks) == (name != example.images[number])
    number = int(examples[0].patient_id.split("-")[-1])
    grey = window(render_volume(sample_volume(number, SLICES)).hounsfield, *LUNG_WINDOW)
    assert (read_image(tmp_path / examples[0].images[2])[..., 0] == grey[2]).all()
