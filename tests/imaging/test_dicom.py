"""DICOM files: windows, overlays, and nothing that identifies anybody in what is written."""

import csv
from pathlib import Path

import numpy as np
import pytest
from dicoms import SECRETS, every_byte, make, overlay, with_overlay
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from clinalign.data import read
from clinalign.data.options import DataOptions
from clinalign.errors import RowError, UsageError
from clinalign.imaging.dicom import read_dicom
from clinalign.imaging.images import is_dicom, read_image, read_mask
from clinalign.imaging.pixels import WINDOWS, Window, apply_window, parse_window
from clinalign.records import Example
from clinalign.storage import Quarantine, write_table

HU = np.array([[-1200, -400, 400], [-160, 40, 240]], dtype=np.int16)


def test_ct_goes_through_slope_intercept_and_window(tmp_path: Path) -> None:
    stored = ((HU + 1200) // 2).astype(np.int16)
    path = make(tmp_path / "a.dcm", stored, RescaleSlope=2, RescaleIntercept=-1200)
    chest = read_dicom(path, window="-1200/400")
    # (-400 - -1200) / 1600 * 255 = 127.5, (-160 + 1200) / 1600 * 255 = 165.75
    assert chest.image[:, :, 0].tolist() == [[0, 128, 255], [166, 198, 230]]
    assert chest.meta["window"] == [{"name": "-1200/400", "center": -400, "width": 1600, "shape": "LINEAR_EXACT"}]
    assert read_dicom(path).meta["window"][0]["name"] == "soft", "a CT without a window of its own"
    colours = read_dicom(path, window="lung+soft+bone")
    assert len(colours.meta["window"]) == 3
    for channel, name in enumerate(("lung", "soft", "bone")):
        assert (colours.image[:, :, channel] == apply_window(HU, WINDOWS[name])).all()


def test_the_files_own_window_and_which_of_several(tmp_path: Path) -> None:
    path = make(tmp_path / "a.dcm", HU, WindowCenter=[40, -600], WindowWidth=[400, 1500])
    assert (read_image(path)[:, :, 0] == apply_window(HU, WINDOWS["soft"])).all()
    assert (read_image(path, window="file:1")[:, :, 0] == apply_window(HU, WINDOWS["lung"])).all()
    with pytest.raises(RowError, match="no_such_window"):
        read_image(path, window="file:2")
    with pytest.raises(UsageError, match="did you mean 'lung'"):
        read_image(path, window="lnug")


def test_window_formulas_by_hand() -> None:
    # PS3.3 C.11.2.1.2.1, its own example: c=2048, w=4096 maps 0 to 0 and 4095 to 255
    assert apply_window(np.array([[0, 2047, 4095]]), Window("x", 2048, 4096)).tolist() == [[0, 127, 255]]
    assert apply_window(np.array([[0, 1]]), Window("x", 1, 1)).tolist() == [[0, 255]]
    # 255 / (1 + exp(-4 (x - c) / w)): at c a half, at c + w/4 0.7311
    assert apply_window(np.array([[100, 125]]), Window("x", 100, 100, "SIGMOID")).tolist() == [[128, 186]]
    with pytest.raises(UsageError, match="empty"):
        parse_window("5/5")


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    plain = make(tmp_path / "a.dcm", HU, WindowCenter=40, WindowWidth=400)
    inverted = make(tmp_path / "b.dcm", HU, WindowCenter=40, WindowWidth=400, PhotometricInterpretation="MONOCHROME1")
    assert (read_image(inverted) == 255 - read_image(plain)).all()


def test_voi_lut_sequence(tmp_path: Path) -> None:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4, 0, 16], [0, 65535, 0, 32768]
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "US"
    stored = np.array([[0, 1, 2, 3]], dtype=np.uint16)
    path = make(tmp_path / "a.dcm", stored, VOILUTSequence=Sequence([item]))
    dicom = read_dicom(path)
    assert dicom.image[0, :, 0].tolist() == [0, 255, 0, 128] and dicom.meta["window"][0]["name"] == "lut"


def test_16_bit_without_a_window_ignores_padding(tmp_path: Path) -> None:
    stored = np.full((20, 20), 1000, dtype=np.uint16)
    stored[10:] = 3000
    stored[0, 0] = 65535
    path = make(tmp_path / "a.dcm", stored, Modality="MR", PixelPaddingValue=65535)
    assert read_image(path)[5, 5, 0] == 0 and read_image(path)[15, 5, 0] == 255


def test_palette_and_rgb(tmp_path: Path) -> None:
    index = np.array([[0, 1]], dtype=np.uint8)
    palette = {}
    for colour, table in (("Red", [0, 65280]), ("Green", [65280, 0]), ("Blue", [0, 0])):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [2, 0, 16]
        palette[f"{colour}PaletteColorLookupTableData"] = np.array(table, dtype="<u2").tobytes()
    path = make(tmp_path / "a.dcm", index, PhotometricInterpretation="PALETTE COLOR", Modality="US", **palette)
    assert read_image(path).tolist() == [[[0, 255, 0], [255, 0, 0]]]
    rgb = np.array([[1, 2, 3, 4, 5, 6]], dtype=np.uint8)
    path = make(
        tmp_path / "b.dcm", rgb, PhotometricInterpretation="RGB", SamplesPerPixel=3, PlanarConfiguration=0, Columns=2
    )
    assert read_image(path).tolist() == [[[1, 2, 3], [4, 5, 6]]]


def test_frames(tmp_path: Path) -> None:
    stack = np.stack([HU, HU + 100]).astype(np.int16)
    path = make(tmp_path / "a.dcm", stack, WindowCenter=40, WindowWidth=400)
    assert (read_image(path, frame=1)[:, :, 0] == apply_window(HU + 100, WINDOWS["soft"])).all()
    with pytest.raises(RowError, match="no_such_frame"):
        read_image(path, frame=2)


def test_a_frame_of_an_enhanced_file_has_its_own_window(tmp_path: Path) -> None:
    groups = []
    for center in (40, -600):
        voi, transform, group = Dataset(), Dataset(), Dataset()
        voi.WindowCenter, voi.WindowWidth = center, 400
        transform.RescaleSlope, transform.RescaleIntercept = 1, -24
        group.FrameVOILUTSequence = Sequence([voi])
        group.PixelValueTransformationSequence = Sequence([transform])
        groups.append(group)
    stack = np.stack([HU, HU]).astype(np.int16)
    path = make(tmp_path / "a.dcm", stack, PerFrameFunctionalGroupsSequence=Sequence(groups))
    for frame, center in enumerate((40, -600)):
        expected = apply_window(HU - 24, Window("x", center, 400))
        assert (read_image(path, frame=frame)[:, :, 0] == expected).all()


def test_rle_is_decoded_and_a_file_without_suffix_is_known(tmp_path: Path) -> None:
    path = make(tmp_path / "a.rle", HU, WindowCenter=40, WindowWidth=400)
    assert is_dicom(path) and (read_image(path)[:, :, 0] == apply_window(HU, WINDOWS["soft"])).all()


def test_overlays_are_regions(tmp_path: Path) -> None:
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[10:20, 12:30] = 1
    [found] = read_dicom(with_overlay(tmp_path / "a.dcm", mask)).overlays
    assert (found == mask).all()
    [moved] = read_dicom(with_overlay(tmp_path / "b.dcm", mask[5:25], origin=(6, 1))).overlays
    assert (moved == mask).all()
    [cut] = read_dicom(with_overlay(tmp_path / "c.dcm", mask, origin=(26, 1))).overlays
    assert cut.sum() == 5 * 18 and cut[35:40, 12:30].all()


def test_of_a_graphics_overlay_only_the_closed_curve_counts(tmp_path: Path) -> None:
    rows, cols = np.mgrid[:40, :40]
    distance = np.hypot(rows - 12, cols - 12)
    drawing = ((distance <= 8) & (distance > 7)).astype(np.uint8)
    drawing[22:39, 20:39] = 1  # a frame with a letter in it, larger than the circle
    drawing[23:38, 21:38] = 0
    drawing[26:34, 28] = 1
    drawing[3, 30:36] = 1  # a word
    [found] = read_dicom(with_overlay(tmp_path / "a.dcm", drawing, kind="G")).overlays
    assert (found == (distance <= 8)).all()


def test_files_without_an_image(tmp_path: Path) -> None:
    path = make(tmp_path / "a.dcm", HU, PixelData=None)
    with pytest.raises(RowError, match="no_pixel_data"):
        read_image(path)
    whole = make(tmp_path / "b.dcm", HU).read_bytes()
    (tmp_path / "c.dcm").write_bytes(whole[:-6])
    (tmp_path / "d.dcm").write_text("no DICOM")
    for name in ("c.dcm", "d.dcm", "none.dcm"):
        with pytest.raises(RowError) as error:
            read_image(tmp_path / name)
        assert error.value.reason in ("unreadable_image", "missing_image")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_no_identifier_in_any_output(tmp_path: Path, monkeypatch, suffix: str) -> None:
    from pydicom import dcmread

    monkeypatch.setenv("CLINALIGN_CACHE", str(tmp_path / "cache"))
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[10:20, 12:30] = 1
    names = [f"{SECRETS['PatientID']}_{n}.dcm" for n in range(3)]
    for name in names:
        with_overlay(tmp_path / "in" / name, mask)
    make(tmp_path / "in" / "broken.dcm", HU, PixelData=None)
    rows = [
        (name, "Where is the lesion?", "liver", SECRETS["PatientID"], SECRETS["AccessionNumber"] + name)
        for name in names
    ]
    rows += [("broken.dcm", "q", "yes", SECRETS["PatientID"], "x"), ("HOSP-4711-XYZ.dcm", "q", "yes", "", "y")]
    rows += [(names[0], "q2", "yes", "", "z")]
    table = tmp_path / "in" / "own.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "question", "answer", "patient_id", "id"), *rows])
    out = tmp_path / "out"
    quarantine = Quarantine(out / "quarantine.jsonl")
    examples = read(DataOptions(source="table", path=str(table)), out, quarantine)
    write_table(out / f"examples{suffix}", examples, Example)
    quarantine.flush()
    assert len(examples) == 4 and quarantine.count() == 2
    assert len({e.patient_id for e in examples}) == 1, "column and header name the same patient"
    assert examples[0].regions[0].mask and examples[0].modality == "CT"
    header = dcmread(tmp_path / "in" / names[0])
    secrets = [*SECRETS.values(), "PRIVATE-55512", "SECRET VENDOR", "Mustermann", "Musterstadt"]
    secrets += [str(e.value) for e in header.iterall() if e.VR == "UI" and str(e.value) != str(CTImageStorage)]
    written = every_byte(out)
    assert [secret for secret in secrets if secret.encode() in written] == []
    assert b"window" in every_byte(out)


def test_jpeg_2000_and_what_has_no_decoder(tmp_path: Path) -> None:
    """JPEG 2000 through Pillow, lossless; JPEG-LS has no decoder in a plain installation."""
    import io

    from PIL import Image
    from pydicom import dcmread
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

    pixels = np.random.default_rng(0).integers(0, 4096, (16, 24), dtype=np.uint16)
    coded = io.BytesIO()
    Image.fromarray(pixels).save(coded, format="JPEG2000", irreversible=False, no_jp2=True)
    path = make(tmp_path / "a.dcm", pixels, Modality="MR", WindowCenter=2048, WindowWidth=4096)
    plain = read_image(path)
    for syntax, name in ((JPEG2000Lossless, "j2k.dcm"), (JPEGLSLossless, "jls.dcm")):
        data = dcmread(path)
        data.PixelData = encapsulate([coded.getvalue()])
        data["PixelData"].VR = "OB"
        data.file_meta.TransferSyntaxUID = syntax
        data.save_as(tmp_path / name)
    assert (read_image(tmp_path / "j2k.dcm") == plain).all() and plain.std() > 10
    with pytest.raises(RowError) as error:
        read_image(tmp_path / "jls.dcm")
    assert error.value.reason == "no_decoder" and "pip install" in error.value.detail
    data = dcmread(tmp_path / "j2k.dcm")
    data.PixelData = encapsulate([coded.getvalue()[:60]])
    data.save_as(tmp_path / "cut.dcm")
    with pytest.raises(RowError) as error:
        read_image(tmp_path / "cut.dcm")
    assert error.value.reason == "unreadable_image", "there is a decoder, the data are damaged"


def write_table_of(folder: Path, rows: list[dict]) -> Path:
    path = folder / "questions.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_several_overlay_planes_are_several_regions(tmp_path: Path, monkeypatch) -> None:
    from pydicom import dcmread

    monkeypatch.setenv("CLINALIGN_CACHE", str(tmp_path / "cache"))
    masks = np.zeros((2, 40, 40), dtype=np.uint8)
    masks[0, 5:9, 5:9], masks[1, 20:30, 20:30] = 1, 1
    path = with_overlay(tmp_path / "in" / "a.dcm", masks[0])
    data = dcmread(path)
    for element in overlay({}, masks[1]):
        data.add_new((0x6002, element.tag.element), element.VR, element.value)
    data.save_as(path)
    table = write_table_of(tmp_path / "in", [{"image": "a.dcm", "question": "q", "answer": "yes"}])
    out = tmp_path / "out"
    [example] = read(DataOptions(source="table", path=str(table)), out, Quarantine(out / "q.jsonl"))
    assert [r.label for r in example.regions] == ["overlay", "overlay"]
    found = [read_mask(out / region.mask) for region in example.regions]
    assert (found[0] == masks[0]).all() and (found[1] == masks[1]).all()


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("question", "What does the image of Erika Mustermann show?"),
        ("answer", "born on 12.08.1957"),
        ("question", "patient hosp-4711-xyz: is there an effusion?"),
        ("finding", "seen in Klinikum Musterstadt"),
    ],
)
def test_a_text_that_names_the_patient_costs_the_row(tmp_path: Path, monkeypatch, field: str, text: str) -> None:
    monkeypatch.setenv("CLINALIGN_CACHE", str(tmp_path / "cache"))
    make(tmp_path / "in" / "a.dcm", HU)
    good = {"image": "a.dcm", "question": "Is the Mustermann sign there?", "answer": "yes", "finding": ""}
    table = write_table_of(tmp_path / "in", [good, good | {field: text}])
    out = tmp_path / "out"
    quarantine = Quarantine(out / "quarantine.jsonl")
    assert len(read(DataOptions(source="table", path=str(table)), out, quarantine)) == 1
    [row] = quarantine.rows
    quarantine.flush()
    assert (row["row"], row["field"], row["reason"]) == (2, field, "identifier_in_text")
    assert text.encode() not in every_byte(out)


def plain_bytes(folder: Path) -> bytes:
    """Every byte of a folder, and what stands packed in its tables and pages."""
    import base64
    import json
    import re
    import zlib

    import pyarrow.parquet as pq

    found = [every_byte(folder)]
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            found.append(json.dumps(pq.read_table(path).to_pylist(), ensure_ascii=False, default=str).encode())
            found.append(str(pq.read_schema(path).metadata).encode())
        elif path.suffix == ".html":
            packed = re.findall(rb"base64,([A-Za-z0-9+/=]+)", path.read_bytes())
            found += [base64.b64decode(text) for text in packed]
            found += [zlib.decompress(data) for data in map(base64.b64decode, packed) if data[:1] == b"\x78"]
    return b"\n".join(found)


@pytest.mark.slow
def test_no_identifier_in_any_output_of_a_whole_run(tmp_path: Path, monkeypatch, capfd) -> None:
    """Names, ids, dates, UIDs, the institution and private tags, after every stage, page and terminal included."""
    from pydicom import dcmread

    from clinalign.folder import Run
    from clinalign.recipe import load_recipe
    from clinalign.run import execute

    monkeypatch.setenv("CLINALIGN_CACHE", str(tmp_path / "cache"))
    secrets = {*SECRETS.values(), "PRIVATE-55512", "SECRET VENDOR", "Mustermann", "Musterstadt", "Quacksalber"}
    rows = []
    for number in range(12):
        mask = np.zeros((40, 40), dtype=np.uint8)
        mask[10:20, 4 + number : 14 + number] = 1
        name = f"{SECRETS['PatientID']}_{number}.dcm"
        path = with_overlay(tmp_path / "in" / name, mask)
        data = dcmread(path)
        data.PatientID = f"{SECRETS['PatientID']}-{number // 2}"
        pixels = np.random.default_rng(number).integers(-100, 200, (40, 40)).astype(np.int16)
        data.PixelData = pixels.tobytes()
        data.save_as(path)
        secrets |= {str(e.value) for e in data.iterall() if e.VR in ("UI", "DA", "TM", "DT", "PN") and e.value}
        secrets |= {data.PatientID}
        side = "left" if number % 2 else "right"
        asked = {"question": "On which side is the nodule?", "answer": side, "finding": "nodule"}
        rows.append(asked | {"image": name, "id": f"ACC998877{number}", "patient_id": data.PatientID})
    make(tmp_path / "in" / "broken.dcm", HU, PixelData=None)
    rows += [rows[0] | {"image": "broken.dcm"}, rows[0] | {"image": f"{SECRETS['PatientID']}_99.dcm", "id": "x"}]
    table = write_table_of(tmp_path / "in", rows)
    secrets -= {str(CTImageStorage), str(ExplicitVRLittleEndian)}
    out = tmp_path / "out"
    small = ["align.max_steps=2", "align.batch=2", "evaluate.resamples=100", "evaluate.permutations=100", "compare={}"]
    given = [f"data={{source: table, path: {table}, splits: {{align: 1, test: 1}}}}", f"align.cache={out / 'features'}"]
    execute(Run(load_recipe("phantom", [*small, *given, "audit=go_on"]), out))
    assert (out / "report.html").is_file() and (out / "adapter").is_dir()
    missing = str(tmp_path / "in" / f"{SECRETS['PatientID']}_99.dcm")  # the user's own path: on the terminal alone
    shown = "".join(capfd.readouterr())
    assert f"ingest: no such file: {missing}" in shown
    written = plain_bytes(out) + shown.replace(missing, "").encode()
    assert b"window" in written and b"no_pixel_data" in written
    assert [secret for secret in sorted(secrets) if secret.lower().encode() in written.lower()] == []
