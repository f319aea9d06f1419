"""Good inputs, out of which the hostile ones are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def draw_folder(folder: Path) -> None:
    """Pictures, a DICOM file, volumes and their masks under short names."""
    import nibabel
    import nrrd
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.png", "c.jpg", "d.tif", "e.bmp", "f.webp"):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / name)
    Image.fromarray((rng.random((48, 64)) * 4095).astype(np.uint16)).save(folder / "g.png")
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[10:20, 10:30] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    volume = (rng.random((12, 10, 8)) * 100).astype(np.float32)
    labels = np.zeros((12, 10, 8), dtype=np.uint8)
    labels[2:6, 2:6, 3] = 1
    world = np.diag([-1.0, -1.0, 2.0, 1.0])
    for name, values in (("v", volume), ("m", labels)):
        nibabel.save(nibabel.Nifti1Image(values, world), folder / f"{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(values, world), folder / f"{name}.nii")
        header = {"space": "LPS", "space directions": np.diag([1.0, 1.0, 2.0]), "space origin": np.zeros(3)}
        nrrd.write(str(folder / f"{name}.nrrd"), values, header)
    dicom(folder / "x.dcm", rng.integers(0, 4096, (32, 32)).astype(np.uint16))


def dicom(path: Path, pixels: np.ndarray[Any, Any], **attributes: Any) -> None:
    """A radiograph of nobody."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.PatientID, data.PatientName, data.Modality = "FUZZ-0001", "Nobody^Norbert", "CR"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.WindowCenter, data.WindowWidth, data.RescaleSlope, data.RescaleIntercept = "2048", "4096", "1", "0"
    data.PixelData = pixels.astype("<u2").tobytes()
    for name, given in attributes.items():
        setattr(data, name, given)
    data.save_as(path, enforce_file_format=True)


def good_row(number: int) -> dict[str, Any]:
    """A row that any table keeps."""
    image = ("a.png", "c.jpg", "g.png", "x.dcm", "v.nii.gz", "")[number % 6]
    row = {"id": f"good-{number}", "question": f"Is there an effusion {number}?", "answer": "yes", "image": image}
    row |= {"patient_id": f"G{number}", "split": ("train", "test")[number % 2]}
    if image == "a.png":
        row["box"] = "5, 5, 10, 10"
    return row


def kept(out: Path, good: int) -> int:
    """How many of the questions of good rows are missing from what an ingest wrote."""
    import pyarrow.parquet as pq

    table = out / "examples.parquet"
    asked = set(pq.read_table(table, columns=["question"]).column(0).to_pylist()) if table.is_file() else set()
    return sum(f"Is there an effusion {number}?" not in asked for number in range(good))
