"""One system's outcomes and measurements on one set of examples: clean answers, answers without the image, margins
without evidence, attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from clinalign.engine import Each
from clinalign.errors import RowError, UsageError
from clinalign.evaluation.metrics import patient, yes_no
from clinalign.evaluation.suites.s_chain import OVERLAP, mean_iou
from clinalign.imaging.images import read_image
from clinalign.language.substitution import values_of
from clinalign.llm import Client
from clinalign.measuring.ablations import find_donors, without_image
from clinalign.measuring.asking import Reuse, Show, ask, in_words, own_images, quarantined, stable
from clinalign.measuring.attention import attention_rows
from clinalign.measuring.drift import drift_rows, none_of
from clinalign.measuring.evidence import (
    Paired,
    Rows,
    can_flip,
    condition_of,
    drawn_images,
    flip_rows,
    own_margins,
    paired,
    probability_of_yes,
)
from clinalign.measuring.judging import judged, rejudged
from clinalign.measuring.options import DRIFT, EvaluationOptions
from clinalign.models.boxes import marked
from clinalign.models.memory import Shrinking
from clinalign.progress import say
from clinalign.records import Example, Measurement, Outcome, files_of
from clinalign.storage import Journal, Quarantine, file_hash, named_files, to_row

STAGE = "evaluate"


class Results(NamedTuple):
    """What was found of a system, condition by condition, each in the order of the examples."""

    outcomes: list[Outcome]
    measurements: list[Measurement]


@dataclass
class System:
    """A model under evaluation, and what its questions are asked with."""

    vlm: Any
    folder: Path
    options: EvaluationOptions
    name: str
    seed: int
    reuse: Reuse
    client: Client | None

    def __post_init__(self) -> None:
        remedy = "lower evaluate.max_new_tokens, or set dtype=bfloat16 or a smaller model"
        self.shrink = Shrinking("evaluate.batch_size", remedy)

    def answered(
        self, condition: str, examples: Sequence[Example], show: Show, refused: dict[str, RowError] | None = None
    ) -> dict[str, Outcome]:
        """Judged outcomes by example id of the examples that can be asked under a condition."""
        self.reuse.label = f"{self.name}, {condition}"
        refused = {} if refused is None else refused
        named: dict[str, Any] = {"system": self.name, "seed": self.seed, "condition": condition}
        named["decoder"] = self.options.decoder.name
        outcomes: dict[str, Outcome] = {}
        for group, answers in ask(self.vlm, examples, show, self.options, self.reuse, self.shrink, refused):
            fresh = [self._located(example, judged(example, answers[example.id], **named)) for example in group]
            if self.client is not None:
                fresh = self._rejudged(self.client, group, fresh)
            outcomes |= {outcome.example_id: outcome for outcome in fresh}
        return outcomes

    def _located(self, example: Example, outcome: Outcome) -> Outcome:
        """The outcome of a question whose answer is a box: right where the overlap is at least a half."""
        true = marked(example.answer)
        if not true or not example.images:
            return outcome
        [image] = [read_image(self.folder / name) for name in example.images[:1]]
        overlap = mean_iou(self.vlm.boxes_said(outcome.text, image), true)
        outcome.metrics["box_iou"] = overlap
        outcome.correct, outcome.reason = overlap >= OVERLAP, "box_iou"
        return outcome

    def _rejudged(self, client: Client, group: list[Example], outcomes: list[Outcome]) -> list[Outcome]:
        """The outcomes as the second reader judges them; its verdicts are kept like answers."""
        options, by_id = self.options, {outcome.example_id: outcome for outcome in outcomes}

        def verdicts(examples: list[Example]) -> dict[str, list[Any]]:
            found = rejudged(client, examples, outcomes, options.judge, options.judge_both)
            return {o.example_id: [[o.correct, o.judge, o.reason, o.slots]] for o in found}

        settings = options.model_dump(mode="json", include={"judge", "judge_both", "llm", "replay"})
        content = {e.id: [e.question, e.answer, to_row(by_id[e.id])] for e in group}
        rows = self.reuse.rows("verdict", [settings, named_files(settings)], group, lambda e: content[e.id], verdicts)
        for name, [[correct, judge, reason, slots]] in rows.items():
            outcome = by_id[name]
            outcome.correct, outcome.judge, outcome.reason, outcome.slots = correct, judge, reason, slots
        return outcomes

    def measured(
        self,
        what: str,
        examples: Sequence[Example],
        pairs: Mapping[str, Paired],
        call: Callable[[list[Example], int], Rows],
        made_with: Any = None,
    ) -> Rows:
        """What a call measures of `examples`, so many at once as the memory takes, by example id."""
        self.reuse.label = f"{self.name}, {what}"
        if self.vlm.end_id != self.vlm.eos_ids[0]:  # the answers that are scored end in it
            made_with = [made_with, self.vlm.end_id]
        folder, shrink, size = self.folder, self.shrink, self.options.batch_size  # a function travels without the rest

        def content(example: Example) -> list[Any]:
            """What is shown (files, regions) and what is asked of it."""
            files = [file_hash(folder / name) for name in files_of(example)]
            shown = [to_row(region) for region in example.regions]
            return [example.prompt, example.images, shown, files, pairs[example.id].key]

        def make(group: list[Example]) -> Rows:
            return shrink(partial(call, group), size)

        return self.reuse.measured(what, made_with, examples, content, make)

    def measurements(self, rows: Rows, examples: Sequence[Example]) -> list[Measurement]:
        """Rows as records, in the order of the examples."""
        named = self.name, self.options.decoder.name, self.seed
        return [Measurement(e.id, *named, *row) for e in examples for row in rows.get(e.id, [])]


def evaluate(
    vlm: Any,
    examples: list[Example],
    folder: Path,
    options: EvaluationOptions,
    *,
    system: str,
    seed: int = 0,
    journal: Journal | None = None,
    quarantine: Quarantine | None = None,
    base: Mapping[str, str] | None = None,
    each: Each = map,
) -> Results:
    """Outcomes and measurements of `system`, which answers by `options.decoder`. `base`: what the base answers, by
    example id, for `options.drift`; without it the system is the base itself. `each` has the groups worked on.

    Examples whose image cannot be read go to the quarantine. With a journal of `Entry` (rows of any system) only those
    are asked and measured whose model, settings or content are others than the journal's; see `measuring.asking`.
    """
    if options.grounding and not vlm.located:
        raise UsageError(
            f"evaluate.grounding: which pixels an image token stands for is not known of a {vlm.family.name} model "
            f"here; set evaluate.grounding=false"
        )
    examples = in_words(vlm, examples, folder)
    with Client(options.llm, replay=options.replay) if options.judge != "rules" else nullcontext() as client:
        one = System(vlm, folder, options, system, seed, Reuse(vlm, journal, system, each), client)
        refused: dict[str, RowError] = {}
        asked = limited(examples, options.limit)
        clean = one.answered("clean", asked, partial(own_images, folder=folder), refused)
        quarantined(quarantine, STAGE, examples, refused)
        chosen = [example for example in asked if example.id in clean]
        outcomes = [clean[example.id] for example in chosen]
        outcomes += _ablated(one, [example for example in chosen if example.images])
        choices = values_of(examples)
        pairs = {e.id: paired(vlm, e, clean[e.id].text, choices) for e in chosen}
        measurements = _calibrated(one, chosen, clean, pairs)
        if options.drift:
            measurements += _drifted(one, chosen, base, choices)
        flippable = limited([example for example in chosen if can_flip(example)], options.flip_limit)
        if options.flips:
            again, margins = _flipped(one, flippable, pairs)
            outcomes, measurements = outcomes + again, measurements + margins
        looked = limited([example for example in chosen if can_flip(example)], options.grounding_limit)
        if options.grounding:
            look = partial(attention_rows, vlm, pairs=pairs, folder=folder)
            rows = one.measured("attention", looked, pairs, partial(_in_parts, look))
            measurements += one.measurements(rows, looked)
    return Results(outcomes, measurements)


def _ablated(one: System, pictured: list[Example]) -> list[Outcome]:
    """Outcomes without the image, condition by condition."""
    donors = find_donors(pictured) if "shuffled" in one.options.ablations else {}
    outcomes: list[Outcome] = []
    for condition in one.options.ablations:
        if condition == "no_image" and one.vlm.images_a_question[0]:
            say(f"evaluate.ablations: {one.vlm.name} takes no question without an image; no_image is left out")
            continue
        show = partial(without_image, folder=one.folder, condition=condition, donors=donors)
        found = one.answered(condition, pictured, show)
        outcomes += [found[example.id] for example in pictured if example.id in found]
    return outcomes


def _calibrated(
    one: System, chosen: list[Example], clean: Mapping[str, Outcome], pairs: Mapping[str, Paired]
) -> list[Measurement]:
    """The probability of yes of the judged yes/no questions whose answer has an edit into the opposite."""
    closed = [example for example in chosen if yes_no(example)] if one.options.calibration else []
    weighed = [e for e in limited(closed, one.options.calibration_limit) if clean[e.id].correct is not None]
    weighed = [example for example in weighed if pairs[example.id].pair is not None]
    call = partial(own_margins, one.vlm, pairs=pairs, folder=one.folder)
    rows = one.measured("certainty", weighed, pairs, lambda group, size: call(group, batch_size=size))
    turned = {e.id: probability_of_yes(e, clean[e.id], rows[e.id]) for e in weighed}
    return one.measurements(turned, weighed)


def _drifted(
    one: System, chosen: list[Example], base: Mapping[str, str] | None, choices: Mapping[str, Sequence[str]]
) -> list[Measurement]:
    """Token KLs from the model without its adapter to the system, on the base's own answers; 0 for the base."""
    said = base if base is not None and one.vlm.peft is not None else {}
    pairs = {e.id: paired(one.vlm, e, said[e.id], choices) for e in chosen if e.id in said}
    asked = [example for example in chosen if example.id in pairs]
    call = partial(drift_rows, one.vlm, pairs=pairs, folder=one.folder)
    rows = one.measured("drift", asked, pairs, lambda group, size: call(group, batch_size=size), DRIFT) if asked else {}
    return one.measurements(rows, asked) if asked or base is not None else one.measurements(none_of(chosen), chosen)


def _flipped(
    one: System, flippable: list[Example], pairs: Mapping[str, Paired]
) -> tuple[list[Outcome], list[Measurement]]:
    """The margins with less evidence and, with `flip_answers`, what is answered then."""
    options = one.options
    settings = options.model_dump(mode="json", include={"sigma", "flips", "flip_levels"})
    call = partial(flip_rows, one.vlm, pairs=pairs, folder=one.folder, options=options)
    rows = one.measured("flips", flippable, pairs, lambda group, size: call(group, batch_size=size), settings)
    outcomes: list[Outcome] = []
    asked = [(condition_of(option, e), e) for option in options.flips if options.flip_answers for e in flippable]
    for condition in dict.fromkeys(condition for condition, _ in asked):
        those = list({e.id: e for name, e in asked if name == condition}.values())
        show = partial(drawn_images, folder=one.folder, vlm=one.vlm, sigma=options.sigma, condition=condition)
        found = one.answered(condition, those, show)
        outcomes += [found[example.id] for example in those if example.id in found]
    return outcomes, one.measurements(rows, flippable)


def _in_parts(call: Callable[[list[Example]], Rows], examples: list[Example], size: int) -> Rows:
    """What a call gives for `size` examples at a time."""
    found: Rows = {}
    for start in range(0, len(examples), size):
        found |= call(examples[start : start + size])
    return found


def limited(examples: list[Example], limit: int) -> list[Example]:
    """At most `limit` examples (0: all), whole patients in the order of a hash, in their original order; where no
    patient has so few, `limit` of the first one's, in the order of a hash too."""
    if not limit or len(examples) <= limit:
        return examples
    sizes: dict[str, int] = {}
    for example in examples:
        sizes[patient(example)] = sizes.get(patient(example), 0) + 1
    kept, total = set(), 0
    for name in sorted(sizes, key=stable):
        if total + sizes[name] <= limit:
            kept.add(name)
            total += sizes[name]
    if not kept:  # no question at all would leave nothing to measure
        first = min(sizes, key=stable)
        ids = sorted((example.id for example in examples if patient(example) == first), key=stable)[:limit]
        return [example for example in examples if example.id in ids]
    return [example for example in examples if patient(example) in kept]
