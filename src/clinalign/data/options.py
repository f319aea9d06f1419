"""Settings of a data source. Nothing heavy here: recipes are validated before anything is imported."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinalign.data.sources import READERS
from clinalign.extensions import Choice, is_own
from clinalign.imaging.limits import MAX_PIXELS, MAX_VOXELS

PHANTOMS = ("phantom", "phantom2")
"""Sources that draw radiographs, so many patients a split."""
SPLITS = ("align", "dev", "test")


class DataOptions(BaseModel):
    """Where the examples come from. `splits` says how many patients (phantom) or which share (all others) go where."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    source: Annotated[str, Choice("source", tuple(READERS))] = Field(
        "phantom",
        description="phantom: drawn radiographs; phantom2: those of phantom-2; phantom_fundus: drawn eyes; "
        "phantom_volume: drawn stacks of slices; table: your CSV, XLSX, JSON, JSONL or Parquet; real: public images "
        "with expert masks; hub: a data set of the Hugging Face hub; otherwise a published set or format by its name, "
        "or an own reader by its dotted path",
    )
    path: str = Field(
        "",
        description="The file or folder of the source (table: image paths are relative to it); hub: the data set's id",
    )
    images: str = Field("", description="Folder that image paths are relative to; empty: where the source has them")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="table, hub: our column to yours, for example {question: prompt, image: file_name}",
    )
    findings: list[str] = Field(
        default_factory=list,
        description="table: columns of labels, one a finding (1 or yes, 0 or no; anything else is not asked); every "
        "row becomes a question a finding, and needs no columns question and answer",
    )
    template: str = Field(
        "Is there {finding}?", description="table: the question that is made of a finding, its column's name in it"
    )
    empty_image: Literal["ask", "text", "drop"] = Field(
        "ask",
        description="table: what a row with an empty image cell is: ask (the run ends and asks), text (a question "
        "without an image) or drop (left out)",
    )
    language: str = Field("en", description="slake, s_chain: questions in this language (en, zh, ...); all: every one")
    views: Literal["all", "frontal", "first"] = Field(
        "all", description="iu_xray, mimic_cxr: which of a study's images an example shows"
    )
    subset: str = Field(
        "",
        description="hub: the configuration; omnimed_vqa: Open-access or Restricted-access; hallucinogen: general, med",
    )
    original_splits: bool = Field(True, description="Keep the splits of the source; false: assign patients by `splits`")
    leaks: Literal["error", "drop", "allow"] = Field(
        "error",
        description="A patient (or image) in two splits: end the run, leave out the rows of the split that is held out "
        "less, or keep them and say how many",
    )
    splits: dict[str, float] = Field(
        default_factory=dict,
        description="phantom: patients a split (align 900, dev 100, test 200 when empty); phantom2: the same (300, "
        "100, 150), and elsewhere (another hospital) and skills; otherwise shares of the patients where the source has "
        "no split (align 0.8, test 0.2 when empty)",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        description="phantom: the questions' draw; otherwise which patient goes to which split, and whom `limit` draws",
    )
    limit: int = Field(
        0,
        ge=0,
        description="Read this many rows of each file at most, drawn over its splits and patients by `seed`; 0: all. "
        "Not for phantoms",
    )
    draw: int = Field(0, ge=0, le=80, description="phantom2: every draw is of new patients")
    rungs: list[Annotated[int, Field(ge=0, le=4)]] = Field(
        default_factory=list,
        description="phantom2: rungs of visibility that scenes stand on, 0 the most visible; empty: all five",
    )
    px: Literal[32, 64, 128] = Field(64, description="phantom: image side in pixels")
    per_case: int = Field(3, ge=1, description="phantom: questions a patient")
    kinds: list[str] = Field(default_factory=list, description="phantom: question kinds; empty: all that carry a claim")
    window: str = Field(
        "auto",
        description="DICOM, volumes: auto (the file's own, otherwise by modality), file:N, lung, soft, bone, brain, "
        "liver, chest, low/high in stored units such as -1200/400, or three of them joined by '+' as colour channels "
        "(medgemma: the three of MedGemma 1.5 for CT)",
    )
    slices: int = Field(
        1,
        ge=1,
        description="Volumes, DICOM series (`image` is their folder) and DICOM files of many frames: 1: one slice, "
        "where the mask is largest; more: all slices as images of one question, at most so many, evenly chosen "
        "(MedGemma 1.5: 85). A row's `frame` wins",
    )
    captions: str = Field(
        "", description="Several slices: what is said behind each image, such as SLICE {number}; empty: nothing"
    )
    intro: str = Field("", description="Several slices with captions: what is said before the first image")
    max_pixels: int = Field(
        MAX_PIXELS, ge=1, description="A picture of more pixels goes to the quarantine; raise it for larger ones"
    )
    max_voxels: int = Field(
        MAX_VOXELS, ge=1, description="A volume of more voxels goes to the quarantine; raise it for larger ones"
    )
    frame: int = Field(0, ge=0, description="DICOM: which frame of a multi-frame file, from 0. A row's `frame` wins")
    key_file: str = Field(
        "", description="File whose bytes key the hashing of patient ids; empty: one made once in the cache folder"
    )
    cache: str = Field("", description="real: folder of the downloads; empty: $CLINALIGN_CACHE or ~/.cache/clinalign")

    @model_validator(mode="after")
    def _consistent(self) -> DataOptions:
        try:
            self.captions.format(number=1)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError("captions knows no place but {number}, the slice's number from 1") from error
        if self.intro and not self.captions:
            raise ValueError("intro is said before captioned slices; set captions, such as SLICE {number}")
        drawn = (*PHANTOMS, "phantom_fundus", "phantom_volume", "real")
        if self.source not in drawn and not is_own(self.source) and not self.path:
            what = "your CSV, JSONL or Parquet file" if self.source == "table" else "the data set"
            raise ValueError(f"source {self.source} needs a path; set data.path to {what}")
        if self.findings and "{finding}" not in self.template:
            raise ValueError("template needs a place for the finding: {finding}")
        for name, size in self.splits.items():
            known = (*SPLITS, "elsewhere", "skills") if self.source == "phantom2" else SPLITS
            if name not in known:
                raise ValueError(f"unknown split '{name}' under splits; use {', '.join(known[:-1])} and {known[-1]}")
            if size < 0 or (self.source in PHANTOMS and size != int(size)):
                raise ValueError(
                    f"splits.{name} is {size}; phantom takes whole numbers, the others shares, none below 0"
                )
        return self
