"""Settings of corruption. Nothing heavy here: recipes are validated before anything is imported."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Kind = Literal["noise", "inpaint", "counterfactual", "crop", "black", "none"]


class LesionOptions(BaseModel):
    """How the evidence is taken away. Defaults are the published ones (arXiv 2606.12590)."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    kind: Kind = Field(
        "noise",
        description="noise inside the region; inpaint: region filled from around it; counterfactual: the image "
        "without the finding (phantoms; elsewhere inpaint); crop, black: whole-image ablations; none: no corruption",
    )
    sigma: float = Field(45.0, gt=0, le=255, description="SD of the noise inside a region, on the 0-255 scale")
    area: Literal["lesion", "image"] = Field("lesion", description="'image' draws the noise over the whole image")
    sigma_image: float | None = Field(
        None, gt=0, le=255, description="SD of whole-image noise where `area` is image; empty: `sigma`"
    )
    sigma_no_region: float = Field(12.0, gt=0, le=255, description="SD of whole-image noise for want of a region")
    fallback: Literal["image", "none"] = Field(
        "image", description="A pair without a region gets whole-image noise, or no corrupted image at all"
    )
    flip: Literal["all", "evidence"] = Field(
        "all",
        description="Which corrupted images turn the preference round (FiRe-MPO): all, as published; evidence: only "
        "those under which the rejected answer is true",
    )
    draw_at: Literal["input", "native"] = Field(
        "input", description="Draw at the model's input resolution, or at the file's own (a resize averages it away)"
    )
    levels: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=list,
        max_length=6,
        description="Steps between an image and its corrupted copy, as shares of the change, rising (lpoi ranks them)",
    )
    control: bool = Field(True, description="Do the same to a patch of the same shape elsewhere inside the body")
    segmenter: str = Field(
        "",
        description="Folder or hub name of a SAM 3 (asked with a phrase where the data set has no region) or of a SAM "
        "or SAM 2 (makes a mask of the data set's box); empty: the data set's regions alone",
    )
    segmenter_adapter: str = Field("", description="PEFT folder of a LoRA adapter on the segmenter, such as MedSAM3")
    segmenter_threshold: float = Field(0.5, gt=0, lt=1, description="Least score of a detection that counts")

    @field_validator("levels")
    @classmethod
    def _rising(cls, levels: list[float]) -> list[float]:
        if levels != sorted(set(levels)):
            raise ValueError("each level takes away more than the one before it; sort them")
        return levels
