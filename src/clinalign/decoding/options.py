"""Settings of the decoders: what a recipe may say under `evaluate.decoder`, and what Python callers pass.

Defaults are the published ones where there are any; a field says so where they are not.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from clinalign.errors import UsageError, nearest


class Sampling(BaseModel):
    """What all decoders share: how a token is drawn from their scores. Greedy unless a temperature is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(
        0.0, ge=0, description="0: the token with the highest score; else scores are divided by it"
    )
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the smallest set of tokens with this probability")
    seed: int = Field(0, ge=0, description="Seed of the draws and of the noise; the same for any batch size")


class Contrast(Sampling):
    """Clean scores moved away from those of a branch that lacks the evidence."""

    alpha: float = Field(1.0, ge=0, description="Weight of the contrast; 0 leaves the clean scores")
    beta: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Adaptive plausibility: tokens below this share of the clean maximum are cut; 0: off",
    )


class Greedy(Sampling):
    """The model's own scores."""

    name: Literal["greedy"] = "greedy"


class Sample(Sampling):
    """The model's own scores, sampled."""

    name: Literal["sample"] = "sample"
    temperature: float = Field(1.0, gt=0, description="Scores are divided by it")


class Beam(BaseModel):
    """Beam search."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["beam"] = "beam"
    beams: int = Field(5, ge=1, description="Sequences kept at each step; 1 is greedy")
    length_penalty: float = Field(1.0, description="Scores are divided by the length to this power")


class VCD(Contrast):
    """Visual contrastive decoding (arXiv 2311.16922): against the image under diffusion noise."""

    name: Literal["vcd"] = "vcd"
    noise_step: int = Field(500, ge=0, le=1000, description="Step of the diffusion schedule; 0 adds no noise")


class M3ID(Sampling):
    """Multi-modal mutual-information decoding (arXiv 2403.14003): against no image, more so the longer the answer."""

    name: Literal["m3id"] = "m3id"
    forgetting: float = Field(
        0.02, ge=0, description="lambda of exp(-lambda t), the share of the image still remembered"
    )
    beta: float = Field(0.1, ge=0, le=1, description="Adaptive plausibility on the clean branch; 0: off")


class PAI(Sampling):
    """Pay attention to image (arXiv 2407.21771): image tokens weigh more for the newest token, then guidance against
    text alone."""

    name: Literal["pai"] = "pai"
    alpha: float = Field(0.2, ge=0, description="Scores e of image tokens become e + alpha |e|")
    gamma: float = Field(1.1, ge=1, description="Guidance away from the answer without the image; 1: none")
    beta: float = Field(0.1, ge=0, le=1, description="Adaptive plausibility on the clean branch; 0: off")
    first_layer: int = Field(2, ge=0, description="First decoder layer whose attention is changed")


class AvisC(Contrast):
    """Attentional vision calibration (arXiv 2405.17820): against the image tokens that draw attention blindly."""

    name: Literal["avisc"] = "avisc"
    gamma: float = Field(
        0.5, gt=0, le=1, description="Layers that together hold this share of the attention to the image"
    )
    lam: float = Field(1.0, description="Blind tokens: attention at least mean + lam standard deviations")


class DAMRO(Contrast):
    """DAMRO (arXiv 2410.04514): against the image tokens that the tower itself looks at most."""

    name: Literal["damro"] = "damro"
    alpha: float = Field(0.5, ge=0, description="Weight of the contrast; 0 leaves the clean scores")
    outliers: int = Field(10, ge=1, description="Image tokens kept in the contrast branch")


class VHR(Sampling):
    """Vision-aware head reinforcement (arXiv 2412.13949): heads that change with the image are scaled up."""

    name: Literal["vhr"] = "vhr"
    scale: float = Field(2.0, gt=0, description="Factor of the chosen heads; 1 changes nothing")
    last_layers: int = Field(14, ge=0, description="How many of the last layers are reinforced, besides the second")


DecoderOptions = Annotated[
    Greedy | Sample | Beam | VCD | M3ID | PAI | AvisC | DAMRO | VHR,
    Field(discriminator="name"),
]
AnyDecoder = Greedy | Sample | Beam | VCD | M3ID | PAI | AvisC | DAMRO | VHR
BY_NAME: dict[str, Any] = {kind.model_fields["name"].default: kind for kind in AnyDecoder.__args__}


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


DecoderField = Annotated[DecoderOptions, BeforeValidator(_named)]
"""A decoder in a recipe: its name, or a mapping with its name and options."""


def as_options(decoder: Any) -> AnyDecoder:
    """Options from a decoder's name (its defaults) or options as they are; `UsageError` for an unknown name."""
    if not isinstance(decoder, str):
        return decoder
    if decoder not in BY_NAME:
        raise UsageError(f"decoder '{decoder}' is unknown{nearest(decoder, BY_NAME)} (known: {', '.join(BY_NAME)})")
    return BY_NAME[decoder]()
