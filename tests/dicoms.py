"""DICOM files full of identifiers, for tests."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

SECRETS = {
    "PatientName": "Mustermann^Erika",
    "PatientID": "HOSP-4711-XYZ",
    "PatientBirthDate": "19570812",
    "StudyDate": "20240229",
    "AccessionNumber": "ACC998877",
    "InstitutionName": "Klinikum Musterstadt",
    "ReferringPhysicianName": "Quacksalber^Hans",
    "StudyDescription": "thorax of Erika",
    "OperatorsName": "Operator^Olga",
    "BodyPartExamined": "MUSTERMANN",
}


def make(path: Path, pixels: np.ndarray, **attributes) -> Path:
    """A DICOM file full of identifiers around the given pixels."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.Modality = "CT"
    for name, value in SECRETS.items():
        setattr(data, name, value)
    data.private_block(0x0009, "SECRET VENDOR", create=True).add_new(0x01, "LO", "PRIVATE-55512")
    frames = pixels if pixels.ndim == 3 else pixels[None]
    data.Rows, data.Columns = frames.shape[1:3]
    if len(frames) > 1:
        data.NumberOfFrames = len(frames)
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    if path.suffix == ".rle":
        data.compress(RLELossless)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def overlay(data: dict, mask: np.ndarray, kind: str = "R", origin: tuple[int, int] = (1, 1)) -> Dataset:
    out = Dataset()
    out.add_new(0x60000010, "US", mask.shape[0])
    out.add_new(0x60000011, "US", mask.shape[1])
    out.add_new(0x60000040, "CS", kind)
    out.add_new(0x60000050, "SS", list(origin))
    out.add_new(0x60000100, "US", 1)
    out.add_new(0x60000102, "US", 0)
    bits = np.packbits(mask.ravel(), bitorder="little").tobytes()
    out.add_new(0x60003000, "OW", bits + b"\0" * (len(bits) % 2))
    return out


def with_overlay(path: Path, mask: np.ndarray, shape: tuple[int, int] = (40, 40), **kwargs) -> Path:
    from pydicom import dcmread

    make(path, np.full(shape, 30, dtype=np.int16))
    data = dcmread(path)
    data.update(overlay({}, mask, **kwargs))
    data.save_as(path)
    return path


def every_byte(folder: Path) -> bytes:
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        found += [str(path.relative_to(folder)).encode(), path.read_bytes()]
    return b"\n".join(found)
