"""Header values as people and other programs write them."""

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from dicoms import make

from clinalign.errors import RowError, UsageError
from clinalign.imaging.dicom import read_dicom
from clinalign.imaging.identifiers import named_in
from clinalign.imaging.pixels import file_window, parse_window, typed_number, typed_numbers

RAMP = (np.arange(256).reshape(16, 16) * 16).astype(np.int16)


def element(tag: bytes, kind: bytes, value: bytes) -> bytes:
    value += b" " * (len(value) % 2)
    return tag + kind + struct.pack("<H", len(value)) + value


def typed(path: Path, **values: bytes) -> Path:
    """A file whose decimal strings are replaced by other bytes."""
    tags = {
        "WindowCenter": b"\x28\x00\x50\x10",
        "WindowWidth": b"\x28\x00\x51\x10",
        "RescaleIntercept": b"\x28\x00\x52\x10",
        "RescaleSlope": b"\x28\x00\x53\x10",
    }
    make(path, RAMP, **dict.fromkeys(values, "1"))
    data = path.read_bytes()
    for name, value in values.items():
        old = element(tags[name], b"DS", b"1")
        assert old in data
        data = data.replace(old, element(tags[name], b"DS", value))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("center", "width", "expected"),
    [
        (b"1000,5", b"2000,0", (1000.5, 2000)),
        (b"1.000,5", b"2,000.0", (1000.5, 2000)),
        (b"[00400, 00400]", b"[00500, 00600]", (400, 500)),
        (b"40\\-600", b"400\\1500", (40, 400)),
        (b" 40 ", b"400\0", (40, 400)),
        ("\u2212600".encode(), b"1500", (-600, 1500)),
    ],
)
def test_a_window_that_a_person_typed_is_read(tmp_path: Path, center: bytes, width: bytes, expected) -> None:
    [used] = read_dicom(typed(tmp_path / "a.dcm", WindowCenter=center, WindowWidth=width)).meta["window"]
    assert (used["name"], used["center"], used["width"]) == ("file", *expected)


@pytest.mark.parametrize(
    ("center", "width"), [(b"MR Mustermann", b"400"), (b"40", b"nan"), (b"40", b"inf"), (b"1,000", b"9")]
)
def test_a_window_that_is_no_number_is_passed_over(tmp_path: Path, center: bytes, width: bytes) -> None:
    [used] = read_dicom(typed(tmp_path / "a.dcm", WindowCenter=center, WindowWidth=width)).meta["window"]
    assert used["name"] == "soft", "a CT without a usable window of its own"


@pytest.mark.parametrize("value", [b"nan", b"inf", b"Erika", b"0", b"1,000"])
def test_a_slope_that_is_no_number_costs_the_row_and_is_not_quoted(tmp_path: Path, value: bytes) -> None:
    with pytest.raises(RowError) as error:
        read_dicom(typed(tmp_path / "a.dcm", RescaleSlope=value))
    assert error.value.reason == "bad_rescale" and "RescaleSlope" in error.value.detail
    assert value.decode() not in error.value.detail or value == b"0"


def test_a_slope_with_a_comma_is_a_slope(tmp_path: Path) -> None:
    plain = read_dicom(typed(tmp_path / "a.dcm", RescaleSlope=b"0.5", RescaleIntercept=b"-1024.0"), window="-1200/400")
    other = read_dicom(typed(tmp_path / "b.dcm", RescaleSlope=b"0,5", RescaleIntercept=b"-1024,0"), window="-1200/400")
    assert (plain.image == other.image).all() and plain.image.max() > 0


def test_numbers_as_people_type_them() -> None:
    assert [typed_number(text) for text in ("\u22121,5", " 7 ", "1.000,25", "1,000.25", "3e2")] == [
        -1.5,
        7,
        1000.25,
        1000.25,
        300,
    ]
    assert [typed_number(text) for text in ("1,000", "nan", "inf", "1_0", "", "x", "1,2,3")] == [None] * 7
    assert typed_numbers("") == [] and typed_numbers("1 2") == [1, 2] and typed_numbers("1\\x") is None
    assert parse_window("\u22121200 / 400")[0].width == 1600 and parse_window("0,5\\1,5")[0].center == 1
    assert [one.name for one in parse_window("Lung + soft+bone")] == ["lung", "soft", "bone"]
    assert [file_window(text) for text in ("file", "file:2", "file:\u00b2", "file:x", "files")] == [
        0,
        2,
        None,
        None,
        None,
    ]
    for text in ("1/inf", "nan/1", "a/b", "1,000/2"):
        with pytest.raises(UsageError):
            parse_window(text)


def test_what_pydicom_says_of_a_header_is_not_printed(tmp_path: Path, capfd) -> None:
    path = make(tmp_path / "a.dcm", RAMP)
    data = path.read_bytes().replace(b"HOSP-4711-XYZ", b"HOSP-\xff711-XYZ")
    path.write_bytes(
        data.replace(element(b"\x10\x00\x30\x00", b"DA", b"19570812"), element(b"\x10\x00\x30\x00", b"DA", b"12.Aug57"))
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        read_dicom(path)
    assert not said and capfd.readouterr() == ("", "")


def test_free_text_of_a_voi_function_does_not_leave(tmp_path: Path) -> None:
    path = make(tmp_path / "a.dcm", RAMP, WindowCenter=40, WindowWidth=400, VOILUTFunction="MUSTERMANN")
    assert read_dicom(path).meta["window"][0]["shape"] == "LINEAR"


def named(path: Path, raw: bytes, charset: bytes) -> list[list[str]]:
    """What identifies the patient of a file whose name holds these bytes under this character set."""
    make(path, RAMP, PatientName="PLACEHOLDERNAME1", SpecificCharacterSet="ISO_IR 100")
    data = path.read_bytes()
    data = data.replace(
        element(b"\x10\x00\x10\x00", b"PN", b"PLACEHOLDERNAME1"), element(b"\x10\x00\x10\x00", b"PN", raw)
    )
    data = data.replace(
        element(b"\x08\x00\x05\x00", b"CS", b"ISO_IR 100"), element(b"\x08\x00\x05\x00", b"CS", charset)
    )
    path.write_bytes(data)
    return read_dicom(path).identifiers


@pytest.mark.parametrize(
    ("raw", "charset", "text"),
    [
        ("Иванов^Пётр".encode(), b"ISO_IR 192", "У пациента Иванов Пётр есть выпот?"),
        ("王^小东".encode("gbk"), b"", "患者 王 小东 有积液吗"),
        ("王^小东".encode("gbk"), b"", "患者王小东有积液吗"),
        ("Иванов^Пётр".encode("cp1251"), b"ISO 2022 IR 6\\IS", "У пациента ИВАНОВ ПЕТР есть выпот?"),
        ("Иванов^Пётр".encode("koi8_r"), b"", "Иванов, Пётр: выпот?"),
        ("Mu\u0308ller^Ja\u0308n".encode(), b"ISO_IR 192", "Has J\u00e4n M\u00fcller an effusion?"),
        ("M\u00fcller^J\u00e4n".encode("latin-1"), b"ISO_IR 100", "Has Mu\u0308ller, Ja\u0308n an effusion?"),
        ("Stra\u00df^Karl".encode(), b"ISO_IR 192", "Has KARL STRASS an effusion?"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう".encode(), b"ISO_IR 192", "山田太郎さんに胸水はありますか"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう".encode(), b"ISO_IR 192", "Does Tarou Yamada have one?"),
        ("김^철수".encode("euc_kr"), b"", "김철수의 흉수"),
        ("Παπαδόπουλος^Νίκος".encode("cp1253"), b"", "Έχει ο Νίκος Παπαδόπουλος υγρό;"),
        (b"Garcia Lopez^Maria Jose", b"ISO_IR 100", "Has Maria Lopez an effusion?"),
        (b"de la Cruz^Maria", b"ISO_IR 100", "Has Maria Cruz an effusion?"),
    ],
)
def test_a_name_is_found_in_any_script_case_and_form(tmp_path: Path, raw: bytes, charset: bytes, text: str) -> None:
    assert named_in(text, named(tmp_path / "a.dcm", raw, charset))


@pytest.mark.parametrize(
    "text",
    [
        "Is there an effusion?",
        "У пациента есть выпот?",
        "患者有积液吗",
        "Is the Cruz sign there, de la Camp's line too?",
    ],
)
def test_a_text_that_names_nobody_is_kept(tmp_path: Path, text: str) -> None:
    for number, raw in enumerate((b"de la Cruz^Maria", "王^小东".encode("gbk"), "Иванов^Пётр".encode("cp1251"))):
        assert not named_in(text, named(tmp_path / f"{number}.dcm", raw, b""))


@pytest.mark.parametrize(
    "text",
    [
        "of HOSP 4711 XYZ", "of hosp4711xyz", "ＨＯＳＰ－４７１１－ＸＹＺ", "born 12.8.1957", "born on 12 August 1957",
        "born Aug 12, 1957", "in KLINIKUM MUSTERSTADT", "the study of 29.02.2024",
    ],
)  # fmt: skip
def test_numbers_and_dates_are_found_as_people_write_them(tmp_path: Path, text: str) -> None:
    assert named_in(text, read_dicom(make(tmp_path / "a.dcm", RAMP)).identifiers)


def test_float_pixels_without_a_number_are_black_or_refused(tmp_path: Path) -> None:
    from pydicom import dcmread

    values = np.arange(64, dtype="<f4").reshape(8, 8)
    for holes, usable in ((np.eye(8, dtype=bool), True), (np.ones((8, 8), dtype=bool), False)):
        path = make(tmp_path / "a.dcm", np.zeros((8, 8), dtype=np.int16), Modality="MR")
        data = dcmread(path)
        for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
            delattr(data, name)
        data.BitsAllocated, data.FloatPixelData = 32, np.where(holes, np.nan, values).astype("<f4").tobytes()
        data.save_as(path)
        if not usable:
            with pytest.raises(RowError, match="unreadable_image"):
                read_dicom(path)
            continue
        image = read_dicom(path).image
        assert (image[holes] == 0).all() and image.max() == 255
