"""Settings of the decoders: what a recipe may say under `evaluate.decoder`, and what Python callers pass.

Defaults are the published ones where there are any; a field says so where they are not. A decoder is a class here and
the function of its name in the file of its name; `DECODERS` has them all, and one of the user's own is `Own`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from clinalign import extensions
from clinalign.errors import UsageError, nearest


class DecoderOptions(BaseModel):
    """What all decoders share. `needs`: what a model must have (`needs.py`); `file`: where its function is, if not in
    the file of its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    needs: ClassVar[tuple[str, ...]] = ()
    file: ClassVar[str] = ""
    if TYPE_CHECKING:
        name: str = ""


class Sampling(DecoderOptions):
    """How a token is drawn from a decoder's scores. Greedy unless a temperature is given."""

    temperature: float = Field(
        0.0, ge=0, description="0: the token with the highest score; else scores are divided by it"
    )
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the smallest set of tokens with this probability")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the draws and of the noise; the same for any batch size")


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

    file = "greedy"
    name: Literal["sample"] = "sample"
    temperature: float = Field(1.0, gt=0, description="Scores are divided by it")


class Beam(DecoderOptions):
    """Beam search: it keeps several sequences a prompt and has a loop of its own."""

    name: Literal["beam"] = "beam"
    beams: int = Field(5, ge=1, description="Sequences kept at each step; 1 is greedy")
    length_penalty: float = Field(1.0, description="Scores are divided by the length to this power")


class VCD(Contrast):
    """Visual contrastive decoding (arXiv 2311.16922): against the image under diffusion noise."""

    needs = ("noise",)
    name: Literal["vcd"] = "vcd"
    noise_step: int = Field(500, ge=0, le=999, description="Step of the diffusion schedule; 0 adds no noise")


class M3ID(Sampling):
    """Multi-modal mutual-information decoding (arXiv 2403.14003): against no image, more so the longer the answer."""

    needs = ("text_alone",)
    name: Literal["m3id"] = "m3id"
    forgetting: float = Field(
        0.02, ge=0, description="lambda of exp(-lambda t), the share of the image still remembered"
    )
    beta: float = Field(0.1, ge=0, le=1, description="Adaptive plausibility on the clean branch; 0: off")


class PAI(Sampling):
    """Pay attention to image (arXiv 2407.21771): image tokens weigh more for the newest token, then guidance against
    text alone."""

    needs = ("text_alone", "attention")
    name: Literal["pai"] = "pai"
    alpha: float = Field(0.2, ge=0, description="Scores e of image tokens become e + alpha |e|")
    gamma: float = Field(1.1, ge=1, description="Guidance away from the answer without the image; 1: none")
    beta: float = Field(0.1, ge=0, le=1, description="Adaptive plausibility on the clean branch; 0: off")
    first_layer: int = Field(2, ge=0, description="First decoder layer whose attention is changed")


class AvisC(Contrast):
    """Attentional vision calibration (arXiv 2405.17820): against the image tokens that draw attention blindly."""

    needs = ("attention",)
    name: Literal["avisc"] = "avisc"
    gamma: float = Field(
        0.5, gt=0, le=1, description="Layers that together hold this share of the attention to the image"
    )
    lam: float = Field(1.0, description="Attention of blind tokens: at least mean + lam standard deviations")


class DAMRO(Contrast):
    """DAMRO (arXiv 2410.04514): against the image tokens that the tower itself looks at most."""

    needs = ("class_token",)
    name: Literal["damro"] = "damro"
    alpha: float = Field(0.5, ge=0, description="Weight of the contrast; 0 leaves the clean scores")
    outliers: int = Field(10, ge=1, description="Image tokens kept in the contrast branch")


class VHR(Sampling):
    """Vision-aware head reinforcement (arXiv 2412.13949): heads that change with the image are scaled up."""

    needs = ("text_alone", "attention")
    name: Literal["vhr"] = "vhr"
    scale: float = Field(2.0, gt=0, description="Factor of the chosen heads; 1 changes nothing")
    last_layers: int = Field(14, ge=0, description="How many of the last layers are reinforced, besides the second")


class IMCCD(Contrast):
    """Inter-modality correlation calibration (arXiv 2501.01926): against values erased where text meets the image."""

    needs = ("attention", "rotation")
    name: Literal["imccd"] = "imccd"
    version: Literal["imccd", "cmac"] = Field("cmac", description="How positions are calibrated: CDAR or CMPC")
    variant: Literal["sound", "paper", "code"] = Field(
        "sound", description="Whose arithmetic where they differ; decoding/imccd.py writes all three out"
    )
    alpha: float = Field(3.0, ge=0, description="Weight of the contrast; 0 leaves the clean scores")
    beta: float = Field(0.2, ge=0, le=1, description="Adaptive plausibility on the clean branch; 0: off")
    gamma: float | None = Field(
        None, ge=1, description="cmac: positions inside the image are divided by it; 1: as they are. Empty: 2 (code: 3)"
    )
    mixing: float = Field(0.2, ge=0, le=1, description="imccd: share of the attention with the image at one position")
    threshold: float = Field(
        0.0, description="Erased: scores above the layer's mean by more than this; a very large number (1e9): none"
    )


class MedVCD(Contrast):
    """Med-VCD (arXiv 2512.01922), as far as it is public, on VASparse (arXiv 2501.06553): a sparse cache of visually
    informed tokens and a contrast without a second pass."""

    needs = ("pruning", "attention")
    name: Literal["med_vcd"] = "med_vcd"
    alpha: float = Field(0.1, ge=0, description="Weight of the contrast; 0 leaves the clean scores")
    sink: float = Field(0.1, ge=0, description="Calibration of attention sinks; 0: none")
    visual: float = Field(0.1, ge=0, description="Weight of a token's attention to the image when tokens are chosen")
    keep: float = Field(0.9, gt=0, le=1, description="Share of the prompt's tokens that stay in the cache")
    clusters: int = Field(8, ge=1, description="Entries that the tokens left out are merged into")
    merge: Literal["mean", "sum"] = Field("mean", description="Keys and values of a merged entry; the paper sums them")


class CAI(Sampling):
    """Caption-sensitive attention intervention (arXiv 2506.23590): heads that read the image more when asked for a
    caption are shifted as such a question shifts them."""

    needs = ("attention",)
    name: Literal["cai"] = "cai"
    calibration: str = Field("", description="File written by decoding.cai.calibrate for this model")
    alpha: float = Field(1.0, ge=0, description="Strength of the shift; 0: none. Not published")


class SECOND(Sampling):
    """Selective and contrastive decoding (arXiv 2506.08391): coarse to fine, each stage seeing the patches that the
    coarser ones looked at; stages are contrasted."""

    needs = ("views", "attention")
    name: Literal["second"] = "second"
    scales: list[float] = Field(
        default=[0.25, 0.5, 1.0],
        min_length=1,
        description="Sides of the image at each stage, in its usual side; coarse first",
    )
    alphas: list[float] = Field(
        default=[0.8, 0.8], description="Weight of each step from a stage to the next finer one; one fewer than scales"
    )
    lam: float = Field(1.0, gt=0, description="How fast the share of patches kept grows with the entropy of attention")
    select: bool = Field(True, description="Keep only patches that were looked at; false keeps all")
    top: int = Field(20, ge=0, description="Tokens that stay candidates, by the finest stage; 0: all")

    @model_validator(mode="after")
    def _one_step_fewer(self) -> SECOND:
        if len(self.alphas) != len(self.scales) - 1 or min(self.scales) <= 0 or self.scales != sorted(self.scales):
            raise ValueError("scales are above 0 and rise, and there is one alpha fewer than scales")
        return self


class Own(Sampling):
    """A decoder of the user's own, `module:name`: a function (PromptBatch, options) that yields scores and is sent
    tokens (`decoding/loop.py`). Every other key is its own, and an attribute of the options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "module:name"


KINDS = (Greedy, Sample, Beam, VCD, M3ID, PAI, AvisC, DAMRO, VHR, IMCCD, MedVCD, CAI, SECOND)
DECODERS: dict[str, type[DecoderOptions]] = {kind.model_fields["name"].default: kind for kind in KINDS}
"""Decoder by name. A recipe's type is made from it."""


def _named(value: Any) -> Any:
    """A name as a group of keys with that name; `ValueError` for one that is not known."""
    group = {"name": value} if isinstance(value, str) else value
    if not isinstance(group, dict | DecoderOptions):
        raise ValueError("a decoder is a name, or a group of keys with a name")
    if isinstance(group, dict):
        extensions.Choice("decoder", tuple(DECODERS)).check(str(group.get("name", "")))
    return group


def _tag(value: Any) -> str:
    name = str(value["name"] if isinstance(value, dict) else getattr(value, "name", ""))
    return "own" if extensions.is_own(name) else name


if TYPE_CHECKING:
    DecoderField = DecoderOptions
else:
    DecoderField = Annotated[
        Union[tuple(Annotated[kind, Tag(name)] for name, kind in (DECODERS | {"own": Own}).items())],  # noqa: UP007
        Discriminator(_tag),
        BeforeValidator(_named),
    ]
"""A decoder in a recipe: its name, or a mapping with its name and options."""


def as_options(decoder: str | DecoderOptions) -> DecoderOptions:
    """Options from a decoder's name (its defaults) or options as they are; `UsageError` for an unknown name."""
    if not isinstance(decoder, str):
        return decoder
    if extensions.is_own(decoder):
        return Own(name=decoder)
    if decoder not in DECODERS:
        raise UsageError(f"decoder '{decoder}' is unknown{nearest(decoder, DECODERS)} (known: {', '.join(DECODERS)})")
    return DECODERS[decoder]()
