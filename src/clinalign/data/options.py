"""Settings of a data source. Nothing heavy here: recipes are validated before anything is imported."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class DataOptions(BaseModel):
    """Where the examples come from. `splits` says how many patients (phantom) or which share (table, real) go where."""

    model_config = ConfigDict(extra="forbid")

    source: Literal["phantom", "table", "real"] = Field(
        "phantom",
        description="phantom: drawn; table: your CSV, JSONL or Parquet; real: public images with expert masks",
    )
    path: str = Field("", description="table: the file; image paths in it are relative to its folder")
    columns: dict[str, str] = Field(
        default_factory=dict, description="table: our column to yours, for example {question: prompt, image: file_name}"
    )
    splits: dict[str, float] = Field(
        default_factory=dict,
        description="phantom: patients a split (align 900, dev 100, test 200 when empty); otherwise shares of the "
        "patients where the table has no split column (align 0.8, test 0.2 when empty)",
    )
    seed: int = Field(0, description="phantom: the questions' draw; otherwise which patient goes to which split")
    limit: int = Field(0, ge=0, description="table, real: read this many rows at most; 0: all")
    px: Literal[32, 64, 128] = Field(64, description="phantom: image side in pixels")
    per_case: int = Field(3, ge=1, description="phantom: questions a patient")
    kinds: list[str] = Field(default_factory=list, description="phantom: question kinds; empty: all that carry a claim")
    window: str = Field(
        "auto",
        description="DICOM, volumes: auto (the file's own, otherwise by modality), file:N, lung, soft, bone, brain, "
        "liver, chest, low/high in stored units such as -1200/400, or three of them joined by '+' as colour channels",
    )
    frame: int = Field(0, ge=0, description="DICOM: which frame of a multi-frame file, from 0")
    key_file: str = Field(
        "", description="File whose bytes key the hashing of patient ids; empty: one made once in the cache folder"
    )
    cache: str = Field("", description="real: folder of the downloads; empty: $CLINALIGN_CACHE or ~/.cache/clinalign")

    @model_validator(mode="after")
    def _consistent(self) -> DataOptions:
        if self.source == "table" and not self.path:
            raise ValueError("source table needs a path; set data.path to your CSV, JSONL or Parquet file")
        for name, size in self.splits.items():
            if name not in ("align", "dev", "test"):
                raise ValueError(f"unknown split '{name}' under splits; use align, dev and test")
            if size < 0 or (self.source == "phantom" and size != int(size)):
                raise ValueError(
                    f"splits.{name} is {size}; phantom takes whole numbers, the others shares, none below 0"
                )
        return self
