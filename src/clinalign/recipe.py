"""One YAML file plus `key=value` overrides into one validated object, unknown keys refused."""

from __future__ import annotations

import math
import re
import reprlib
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clinalign.data.options import DataOptions
from clinalign.engine import EngineOptions
from clinalign.errors import UsageError, nearest
from clinalign.lesions.options import LesionOptions
from clinalign.measuring.options import AnswerOptions, EvaluationOptions
from clinalign.objectives import METHODS
from clinalign.option_list import unknown_key
from clinalign.pairs.options import PairOptions
from clinalign.storage import damage, is_file, read_state, read_text
from clinalign.study.options import SweepOptions
from clinalign.training.options import TrainOptions

M = TypeVar("M", bound=BaseModel)
LARGEST = 1 << 20
"""Bytes of a recipe."""
MOST_VALUES = 20_000
DEEPEST = 40
SHORT = reprlib.Repr()
"""A value as a message shows it: nobody reads a megabyte, and one of nested aliases does not end."""
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 80
RUN = "run.json"
"""Where a run folder keeps its resolved recipe."""
SHIPPED = Path(__file__).parent / "recipes"
LONGEST_LABEL = 64
LABEL_SIGNS = " ._-+=,()"
RESERVED = {"base", "maps"}
DEVICE = re.compile(r"con|prn|aux|nul|(com|lpt)\d")


class Recipe(BaseModel):
    """Everything a run needs. `align` is the method of interest; `compare` names systems trained on the same pairs."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str = Field("run", description="Shown on the page and in the model card")
    model: str = Field(
        "embedded",
        description="'embedded', 'embedded2' (of phantom-2), or the folder of a Hugging Face vision-language model",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Precision of the forward passes")
    processor: str = Field(
        "", description="Folder or hub name of the processor, for a model that ships none; empty: the model's own"
    )
    quantize: Literal["none", "4bit"] = Field(
        "none", description="4bit: the language model's frozen weights in NF4 (needs the extra `quantize`)"
    )
    unpacked: bool = Field(
        False,
        description="Score every answer in a plain pass of its own even where packing is proved to be exact (slow); a "
        "model that cannot be packed falls back to it by itself, and says so",
    )
    tiles: bool = Field(
        False,
        description="Gemma 3, InternVL, Idefics3: cut an image as the model's own processor does, instead of one tile "
        "an image; other families that cut always do",
    )
    boxes: Literal[
        "auto", "unit", "relative_1000", "relative_1000_yx", "qwen2", "internvl", "resized_pixels", "loc"
    ] = Field(
        "auto",
        description="How the model writes boxes; `<box>x,y,w,h</box>` (pixels) in a question becomes that, and answers "
        "are read so; auto: as the model's family does",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|(cuda|xpu)(:[0-9]{1,3})?)$",
        description="auto takes the GPU when there is one; otherwise cpu, cuda, cuda:1, mps or xpu",
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="Seed of model initialisation and data order, unless `align` sets its own"
    )
    engine: EngineOptions = Field(
        default_factory=EngineOptions,
        description="Where the groups of answering, editing, corrupting and measuring are worked on",
    )
    strict: bool = Field(False, description="A quarantined row ends the run with exit code 2")
    rounds: int = Field(1, ge=1, description="Rounds of online self-feedback: answer, edit, train, answer again")
    reference: Literal["base", "previous"] = Field("base", description="Reference policy of rounds after the first")
    data: DataOptions = Field(default_factory=DataOptions, description="Where the examples come from")
    answer: AnswerOptions = Field(default_factory=AnswerOptions, description="How the model's own answers are sampled")
    pair: PairOptions = Field(default_factory=PairOptions, description="How answers are edited into preference pairs")
    corrupt: LesionOptions = Field(default_factory=LesionOptions, description="How the evidence is taken away")
    audit: Literal["refuse", "go_on"] = Field(
        "refuse", description="What training does with a corpus that fails the audit: refuse it, or say so and go on"
    )
    warmup: TrainOptions | None = Field(
        None, description="Supervised training on the align split's true answers before anything else (method: sft)"
    )
    align: TrainOptions = Field(default_factory=TrainOptions, description="The method and its training settings")
    compare: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Further systems: a name, and what differs from `align`"
    )
    evaluate: EvaluationOptions = Field(default_factory=EvaluationOptions, description="What is measured, and how")
    sweep: SweepOptions | None = Field(None, description="What `clinalign sweep` tries, and by which rule dev chooses")

    @model_validator(mode="after")
    def _given_once(self) -> Recipe:
        if self.pair.editor == "dataset" and self.rounds > 1:
            raise ValueError("pair.editor dataset brings the same pairs every time; set rounds to 1")
        if self.rounds > 1 and self.align.reinforce is not None:
            raise ValueError("reinforcement samples anew at every step by itself; set rounds to 1")
        return self

    @model_validator(mode="after")
    def _workers_have_the_device(self) -> Recipe:
        if self.engine.kind == "ray" and not self.engine.gpus and self.device not in ("auto", "cpu"):
            raise ValueError(f"workers without GPUs cannot use device {self.device}; set engine.gpus=1, or device=auto")
        if self.engine.kind == "ray" and self.device.partition(":")[2].strip("0"):
            raise ValueError(f"a worker sees its own GPU alone, as number 0, and no {self.device}; set device=auto")
        return self

    @model_validator(mode="after")
    def _vllm_has_a_model(self) -> Recipe:
        if self.answer.engine == "vllm":
            if self.quantize != "none":
                raise ValueError("answer.engine vllm takes whole weights; set quantize=none, or answer.engine=local")
            if self.processor:
                raise ValueError(
                    "answer.engine vllm takes the processor of the model's folder; put the files of "
                    "`processor` there, or set answer.engine=local"
                )
            if self.device == "cpu":
                raise ValueError("answer.engine vllm needs a GPU; set device=auto, or answer.engine=local")
            if self.engine.kind == "ray" and self.engine.gpus < self.answer.vllm_memory:
                raise ValueError(
                    "answer.engine vllm on workers takes answer.vllm_memory of a GPU each; set engine.gpus=1"
                )
            if self.rounds > 1 and self.align.distill is not None:
                raise ValueError(
                    "answer.engine vllm reads plain weights, and a later round would ask a model with an image "
                    "projection, which is no part of them; set answer.engine=local"
                )
        return self

    @model_validator(mode="after")
    def _warmup_is_supervised(self) -> Recipe:
        if self.warmup is not None and (self.warmup.method, self.warmup.tune) != ("sft", "lora"):
            raise ValueError("warmup trains an adapter on true answers; give it method: sft and leave tune: lora")
        return self

    @model_validator(mode="after")
    def _labels_are_names(self) -> Recipe:
        seen: dict[str, str] = {}
        for label in self.compare:
            error = label_error(label)
            if label.casefold() == self.align.label.casefold():
                error = "has the name of the method under `align`"
            if label.casefold() in seen:
                error = f"is '{seen[label.casefold()]}' but for capitals, and some file systems take them for one"
            if error:
                raise ValueError(f"compare: '{label[:LONGEST_LABEL]}' {error}; rename it")
            seen[label.casefold()] = label
        return self

    def system(self, label: str) -> TrainOptions:
        """Training options of `align` (by its method's name) or of one system under `compare`."""
        return self.varied(self.compare[label], f"compare.{label}") if label in self.compare else self.align

    def varied(self, own: dict[str, Any], where: str) -> TrainOptions:
        """The options of `align` with some of them given anew."""
        below = self.align.differing()
        if isinstance(own, dict) and (method := METHODS.get(str(own.get("method")))):
            below = {name: value for name, value in below.items() if name not in method.fixed}  # set for `align` alone
            if below.get("variant") not in method.variants:
                below.pop("variant", None)
            if not method.by_kind:
                below.pop("betas", None)
        return validated(TrainOptions, _merge(below, own, where), where)

    def systems(self) -> list[str]:
        """Labels of everything that is trained, the method of interest first."""
        return [self.align.label, *self.compare]


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Reads a recipe. `path` is a file, the name of a shipped recipe ('demo') or a run folder, whose recipe it is; an
    override is 'key.key=value'.

    Raises `UsageError` for a missing file, broken YAML, an unknown key (nearest name offered) or a bad value.
    """
    file = _find(path)
    values = read_state(file).get("recipe", {}) if file.name == RUN else read_values(file)
    for override in overrides or []:
        apply_override(values, override)
    _check_values(values, str(file))
    recipe = validated(Recipe, values, str(file))
    for label in recipe.compare:
        recipe.system(label)
    return recipe


def read_values(file: Path) -> dict[str, Any]:
    """The keys of a YAML file."""
    try:
        if file.stat().st_size > LARGEST:
            raise UsageError(f"{file}: larger than {LARGEST} bytes; a recipe is a short YAML file")
        values = _parsed(read_text(file), str(file)) or {}
    except UnicodeError as error:
        raise UsageError(f"{file}: not a text file; a recipe is YAML") from error
    if not isinstance(values, dict):
        raise UsageError(f"{file}: a recipe is a YAML mapping of keys to values, not a {type(values).__name__}")
    return values


class _Loader(yaml.SafeLoader):
    """YAML's plain values, of which true and false alone are truth values: `cache: off` is the word."""

    yaml_implicit_resolvers = {
        sign: [(tag, pattern) for tag, pattern in known if not tag.endswith(":bool")]
        for sign, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))


def _parsed(text: str, where: str) -> Any:
    """YAML into plain values. Raises `UsageError` for anything that is none, nested too deeply, or grows by aliases."""
    try:
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: not valid YAML: {' '.join(str(error).split())[:300]}") from error
    except (ValueError, RecursionError, OverflowError, TypeError) as error:  # of dates, numbers and brackets
        raise UsageError(f"{where}: not valid YAML: {type(error).__name__}; quote what is text") from error
    _check_values(values, where)
    return values


def _check_values(values: Any, where: str) -> None:
    """Raises `UsageError` unless all values are text, numbers, true or false, lists and mappings, and not too many.

    Aliases count as often as they are used: a few lines can name a billion values.
    """
    count, waiting = 0, [("", values, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        count += 1
        if count > MOST_VALUES or depth > DEEPEST:
            raise UsageError(f"{where}: more than {MOST_VALUES} values, or nested beyond {DEEPEST} levels")
        if isinstance(value, dict):
            waiting += [(f"{name}.{key}" if name else str(key), below, depth + 1) for key, below in value.items()]
            waiting += [(name, key, depth) for key in value if isinstance(key, str)]
        elif isinstance(value, list):
            waiting += [(name, below, depth + 1) for below in value]
        elif isinstance(value, str):
            if broken := damage(value):
                raise UsageError(f"{where}: {name}: holds {broken}; write plain text")
        elif isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{where}: {name}: {value} is no finite number")
        elif value is not None and not isinstance(value, bool | int | float):
            raise UsageError(f"{where}: {name}: a {type(value).__name__} is no text or number; quote it")


def label_error(label: str) -> str:
    """Why a text cannot be a system's label, which names a folder, a stage and a row of every table; "" where it can.

    Reserved: `base` (the model as it came), `maps` (a stage of its own beside those of the systems), and what stands
    for a device on some systems.
    """
    if not label.strip() or label != label.strip():
        return "is no name, or has space around it"
    if len(label.encode()) > LONGEST_LABEL:
        return f"is longer than {LONGEST_LABEL} bytes"
    if label.startswith(".") or label.endswith(".") or not all(c.isalnum() or c in LABEL_SIGNS for c in label):
        return f"is not made of letters, digits, spaces and {LABEL_SIGNS.strip()} alone, without a dot at its ends"
    if label.casefold() in RESERVED or DEVICE.fullmatch(label.casefold().partition(".")[0]):
        return "is a reserved name"
    return ""


def _find(path: str | Path) -> Path:
    shipped = {file.stem: file for file in SHIPPED.glob("*.yaml")}
    if is_file(Path(path)):
        return Path(path)
    if str(path) in shipped:
        return shipped[str(path)]
    if is_file(Path(path) / RUN):
        return Path(path) / RUN
    hint = nearest(str(path), shipped) or f"; shipped recipes: {', '.join(sorted(shipped))}"
    raise UsageError(f"{path}: no such recipe file{hint}")


def apply_override(values: dict[str, Any], text: str) -> None:
    """Sets the key of a `KEY=VALUE` text. Raises `UsageError`."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"'{text}': an override is key=value, for example align.beta=0.1")
    parsed = _parsed(value, f"'{text[:80]}'")
    *parents, last = key.split(".")
    for parent in parents:
        below = values.setdefault(parent, {})
        if not isinstance(below, dict):
            raise UsageError(f"'{text}': '{parent}' is a value, not a group of keys")
        values = below
    values[last] = parsed


def _merge(below: dict[str, Any], above: dict[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(above, dict):
        raise UsageError(f"{where}: expected keys of `align` that differ, got {SHORT.repr(above)}")
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value, f"{where}.{key}") if nested else value
    return merged


def validated(kind: type[M], values: dict[str, Any], where: str) -> M:
    """Values as options of a kind. Raises `UsageError`, `where` first, naming the key that is wrong."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        location = [str(part) for part in first["loc"]]
        name = ".".join(location)
        if first["type"] == "extra_forbidden":
            raise UsageError(f"{where}: unknown key '{name}'{unknown_key(kind, location)}") from error
        given = f", got {SHORT.repr(first['input'])}" if not isinstance(first["input"], dict) else ""
        place = f"{where}: {name}" if name else where
        raise UsageError(f"{place}: {first['msg'].removeprefix('Value error, ')}{given}") from error
