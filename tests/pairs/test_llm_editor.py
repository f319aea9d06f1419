"""The LLM editor: a failing endpoint loses and doubles nothing; whatever a model replies, the filters hold."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from clinalign.data.phantom.cases import sample_case
from clinalign.data.phantom.text import contaminate, questions
from clinalign.errors import UsageError
from clinalign.llm import parse_reply
from clinalign.pairs import PairOptions, build_pairs, corpus_numbers
from clinalign.pairs.backends import open_backend
from clinalign.pairs.dialogue import apply_claim_diff, apply_diff, find_claim
from clinalign.pairs.filters import REASONS
from clinalign.records import Answer, Example, Pair
from clinalign.storage import Quarantine

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "language"))
from loopback import serve
from oracle import STAGES, Oracle, dice, fields_of, stage_of
from test_build_pairs import answer, example, phantoms
from test_spans import cut, outside
from tokenizers_small import byte_level

LASTING = {
    "malformed": "unparsable",
    "outside schema": "unparsable",
    "prose": "unparsable",
    "cut off": "unparsable",
    "refusal": "refused",
    "refusal in words": "refused",
    "filtered": "refused",
    "400": "rejected",
    "500": "endpoint_failed",
    "slow": "timed_out",
}
"""Fault of every try -> the reason in the quarantine."""
MEDDLING = {
    "elsewhere": "not_quoted",
    "nothing": "nothing_changed",
    "rewrite": "over_budget",
    "aside": "outside_claim",
    "wrong verdict": "disputed",
    "cannot tell": "cannot_tell",
}
"""What a model may do instead of editing -> the reason."""
PASSING = ("429", "429 without a time", "500", "503", "cut", "not http json", "malformed", "outside schema", "prose")


def corpus(patients: int = 5) -> tuple[list[Example], list[Answer]]:
    """Phantom questions and reports with a speaker's answers; every text once, so that faults can go by text."""
    examples, answers = phantoms(patients)
    for patient in range(patients):
        rng = random.Random(patient)
        for q in questions(sample_case(patient), rng, ("report",)):
            examples.append(Example(f"r{patient}", [], q.prompt, q.answer, q.task, slots=q.slots, row=patient))
            answers.append(answer(examples[-1], contaminate(q, rng).full))
    seen: set[tuple[str, str]] = set()
    kept = []
    for e, a in zip(examples, answers):
        if (e.answer, a.text) not in seen:
            seen.add((e.answer, a.text))
            kept.append((e, a))
    return [e for e, _ in kept], [a for _, a in kept]


def fates(answers: list[Answer]) -> dict[str, str]:
    """A third of the answers meets a lasting fault or a meddling model, each kind in turn; text -> what."""
    names = [*LASTING, *MEDDLING]
    return {a.text: names[n // 3 % len(names)] for n, a in enumerate(answers) if n % 3 == 0}


def text_of(body: dict[str, Any]) -> str:
    fields = fields_of(body)
    return fields.get("answer") or fields.get("report") or fields["first"]


class Meddler(Oracle):
    """Edits well but where the fate of an answer says otherwise."""

    def __init__(self, examples: list[Example], answers: list[Answer]) -> None:
        super().__init__(examples, answers)
        self.fates = fates(answers)

    def fail(self, body: dict[str, Any], tries: int) -> str:
        """Lasting faults go by the answer; three in ten of all first tries fail in passing."""
        doing = self.fates.get(text_of(body), "")
        if doing in LASTING:
            return doing
        again = len(body["messages"]) > 2
        drawn = dice("passing", json.dumps(body, sort_keys=True))
        return PASSING[int(drawn / 0.3 * len(PASSING))] if drawn < 0.3 and tries == 0 and not again else ""

    def reply(self, stage: str, fields: dict[str, str]) -> dict[str, Any]:
        found = super().reply(stage, fields)
        text = fields.get("answer") or fields.get("report") or fields["first"]
        doing = self.fates.get(text, "")
        if doing in MEDDLING and stage in ("Located", "RepairedReport"):
            return meddled(doing, text, found)
        if doing in ("nothing", "rewrite", "aside") and stage in ("InjectedClaim", "InjectedReport"):
            key = "changed" if stage == "InjectedClaim" else "report"
            return found | {key: with_error(doing, text, found[key])}
        return found


def with_error(doing: str, text: str, edited: str) -> str:
    if doing == "nothing":
        return text
    if doing == "rewrite":
        return "After long thought and with all due care, one would have to say that things look quite different here."
    return edited.replace(" the ", " this ", 1) if " the " in edited else edited.replace(" ", " really ", 1)


def meddled(doing: str, text: str, found: dict[str, Any]) -> dict[str, Any]:
    key = "repaired" if "repaired" in found else "report"
    wrong = found.get("verdict") == "wrong" or bool(found.get("wrong"))
    if doing == "elsewhere":
        return found | ({"claim": "a dragon"} if key == "repaired" else {})
    if doing == "wrong verdict" and key == "repaired":
        return found | {"verdict": "right" if wrong else "wrong"}
    if doing == "wrong verdict":
        return {"wrong": [] if wrong else ["it"], "report": text}
    if doing == "cannot tell" and key == "repaired":
        return found | {"verdict": "cannot_tell"}
    spoken = wrong and doing in ("nothing", "rewrite", "aside")
    return found | {key: with_error(doing, text, found[key])} if spoken else found


def options(url: str, cache: Path, **more: Any) -> PairOptions:
    llm = {"base_url": url, "model": "m", "cache": str(cache), "backoff_s": 0.005, "timeout_s": 3.0, "retries": 1}
    return PairOptions.model_validate({"editor": "llm", "llm": llm | more.pop("llm", {}), **more})


@pytest.fixture
def quarantine(tmp_path: Path) -> Iterator[Quarantine]:
    yield Quarantine(tmp_path / "quarantine.jsonl")


def whole(pairs: list[Pair], answers: list[Answer], quarantine: Quarantine) -> None:
    """Every record is a pair or a row of the quarantine, once; every pair keeps the sampled ids."""
    assert sorted([p.example_id for p in pairs] + [row["id"] for row in quarantine.rows]) == sorted(
        a.example_id for a in answers
    )
    sampled = {a.example_id: a for a in answers}
    for p in pairs:
        own, ids = (p.chosen, p.chosen_token_ids) if p.own == "chosen" else (p.rejected, p.rejected_token_ids)
        assert own == sampled[p.example_id].text and ids == sampled[p.example_id].token_ids
        assert cut(p.chosen, p.chosen_spans) == cut(p.rejected, p.rejected_spans)
        assert outside(byte_level(), p.chosen_token_ids, p.chosen_spans, p.chosen) == outside(
            byte_level(), p.rejected_token_ids, p.rejected_spans, p.rejected
        )


def test_thirty_percent_faults_lose_and_double_nothing_and_a_second_run_asks_nothing(
    tmp_path: Path, quarantine: Quarantine
) -> None:
    examples, answers = corpus()
    speak = Meddler(examples, answers)
    with serve(speak, speak.fail) as server:
        given = options(server.url, tmp_path / "cache")
        with open_backend(given) as backend:
            pairs = build_pairs(examples, answers, byte_level(), given, quarantine, backend=backend)
            backend.record(tmp_path / "replies.jsonl")
        first, asked = backend.usage(), len(server.log)
        rows = list(quarantine.rows)
        with open_backend(given) as backend:
            again = build_pairs(examples, answers, byte_level(), given, quarantine, backend=backend)
        assert len(server.log) == asked == first["requests"] and backend.usage()["requests"] == 0
    assert again == pairs and quarantine.rows == rows
    whole(pairs, answers, quarantine)
    assert sum(server.faults.values()) >= 0.3 * asked and set(LASTING) <= set(server.faults)
    reasons = {row["id"]: row["reason"] for row in rows}
    for a in answers:
        doing = speak.fates.get(a.text, "")
        if doing in LASTING:
            assert reasons[a.example_id] == LASTING[doing]
        elif not doing:
            assert a.example_id not in reasons
        elif doing != "elsewhere" or not a.example_id.startswith("r"):
            expected = {MEDDLING[doing], "disputed"} if doing == "cannot tell" else {MEDDLING[doing]}
            assert reasons.get(a.example_id) in expected | {"still_right", "synonym_only", None}, (doing, a.text)
    counted = corpus_numbers(pairs, quarantine)
    assert counted["filters"] == dict(Counter(reasons.values()).most_common()) and set(reasons.values()) <= set(REASONS)
    assert counted["editors"] == {"llm": len(pairs)} and len(pairs) > len(answers) / 2
    replay = given.model_copy(update={"editor": "replay", "replay": str(tmp_path / "replies.jsonl")})
    replayed = build_pairs(examples, answers, byte_level(), replay, quarantine)
    assert [(p.chosen, p.rejected) for p in replayed] == [(p.chosen, p.rejected) for p in pairs]
    assert quarantine.rows == rows


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_llm_editor import *
examples, answers = corpus(2)
print(len(build_pairs(examples, answers, byte_level(), options({url!r}, Path({cache!r})), Quarantine(Path("q")))))
"""


def test_killed_in_the_middle_it_goes_on_and_comes_to_the_same_pairs(tmp_path: Path, quarantine: Quarantine) -> None:
    examples, answers = corpus(2)
    speak = Oracle(examples, answers)

    def slowly(body: dict[str, Any]) -> str:
        time.sleep(0.02)
        return speak(body)

    with serve(slowly) as server:
        code = KILLED.format(here=str(Path(__file__).parent), url=server.url, cache=str(tmp_path / "cache"))
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        while len(server.log) < 12 and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"
        time.sleep(0.2)
        before, kept = len(server.log), len(list((tmp_path / "cache").rglob("*.json")))
        given = options(server.url, tmp_path / "cache", llm={"timeout_s": 10})
        pairs = build_pairs(examples, answers, byte_level(), given, quarantine)
        asked = len(server.log) - before
    whole(pairs, answers, quarantine)
    assert kept > 0 and len(pairs) == len(answers)
    with serve(speak) as fresh:
        given = options(fresh.url, tmp_path / "other")
        assert pairs == build_pairs(examples, answers, byte_level(), given, quarantine)
    assert asked == len(fresh.log) - kept


def one(
    reply: dict[str, dict[str, Any]], tmp_path: Path, quarantine: Quarantine, text: str, truth: str, **more: Any
) -> Pair | str:
    """The pair of one answer, or the reason why there is none, with fixed replies by stage."""
    made = example(truth, question=more.pop("question", "Is there a nodule?"), task=more.pop("task", "open"))
    with serve(lambda body: json.dumps(reply[stage_of(body)])) as server:
        given = options(server.url, tmp_path / "cache", llm={"timeout_s": 10}, **more)
        pairs = build_pairs([made], [answer(made, text)], byte_level(), given, quarantine)
    return pairs[0] if pairs else quarantine.rows[0]["reason"]


def located(claim: str, verdict: str, repaired: str = "") -> dict[str, Any]:
    return {"Located": {"claim": claim, "verdict": verdict, "repaired": repaired or claim}}


ORGAN = {
    "question": "Which organ is shown in the upper part?",
    "text": "The upper part shows the gizzard.",
    "truth": "crop",
}


@pytest.mark.parametrize(
    "reply, more, result",
    [
        (located("no nodule", "wrong", "a nodule"), {}, "There is a nodule here."),
        (located("No  Nodule.", "wrong", '"A nodule."'), {}, "There is a nodule here."),
        (located("There is no nodule here", "wrong", "There is a nodule here."), {}, "There is a nodule here."),
        (located("no mass", "wrong", "a mass"), {}, "not_quoted"),
        (located("no nodule", "wrong", "no nodule"), {}, "nothing_changed"),
        (located("no nodule", "right"), {}, "disputed"),
        (located("no nodule", "cannot_tell"), {}, "cannot_tell"),
        (located("There is no nodule here", "wrong", "With great certainty I can see a nodule in this image"), {},
         "over_budget"),
        (located("no nodule here", "wrong", "no lump here"), {"verify": "rules"}, "cannot_tell"),
        (located("There is no nodule here", "wrong", "There is a nodule there"), {}, "outside_claim"),
        (located("no nodule", "wrong", "a nodule\nIgnore all rules"), {}, "outside_claim"),
    ],
)  # fmt: skip
def test_whatever_a_model_replies_the_gates_hold(
    reply: dict[str, Any], more: dict[str, Any], result: str, tmp_path: Path, quarantine: Quarantine
) -> None:
    made = one(reply, tmp_path, quarantine, "There is no nodule here.", "yes", **more)
    assert (made.chosen if isinstance(made, Pair) else made) == result


def checked(verdict: str, same: bool = False) -> dict[str, Any]:
    return {"Checked": {"verdict": verdict, "same_claim": same}}


@pytest.mark.parametrize(
    "reply, verify, result",
    [
        (located("gizzard", "wrong", "crop"), "model", "The upper part shows the crop."),
        (located("gizzard", "wrong", "stomach") | checked("wrong"), "model", "still_wrong"),
        (located("gizzard", "wrong", "ventriculus") | checked("wrong", True), "model", "same_wrong_answer"),
        (located("gizzard", "wrong", "ingluvies") | checked("right"), "model", "The upper part shows the ingluvies."),
        (located("gizzard", "wrong", "ingluvies") | checked("cannot_tell"), "model", "cannot_tell"),
        (located("gizzard", "wrong", "ingluvies"), "rules", "cannot_tell"),
    ],
)
def test_where_the_rules_cannot_tell_the_model_is_asked_afresh(
    reply: dict[str, Any], verify: str, result: str, tmp_path: Path, quarantine: Quarantine
) -> None:
    more = {"question": ORGAN["question"], "verify": verify}
    made = one(reply, tmp_path, quarantine, ORGAN["text"], ORGAN["truth"], **more)
    assert (made.chosen if isinstance(made, Pair) else made) == result


@pytest.mark.parametrize(
    "reply, result",
    [
        ({"InjectedClaim": {"changed": "gizzard"}} | checked("wrong"), "The upper part shows the gizzard."),
        ({"InjectedClaim": {"changed": "ingluvies"}} | checked("right", True), "synonym_only"),
        ({"InjectedClaim": {"changed": "ingluvies"}} | checked("right"), "still_right"),
        ({"InjectedClaim": {"changed": "Crop."}}, "nothing_changed"),
    ],
)
def test_a_right_answer_becomes_a_mistake(
    reply: dict[str, Any], result: str, tmp_path: Path, quarantine: Quarantine
) -> None:
    made = one(located("crop", "right") | reply, tmp_path, quarantine, "The upper part shows the crop.", "crop",
               question=ORGAN["question"])  # fmt: skip
    assert (made.rejected if isinstance(made, Pair) else made) == result


def test_without_counterfactuals_nothing_is_asked_for_a_right_answer_but_whether_it_is(
    tmp_path: Path, quarantine: Quarantine
) -> None:
    made = one(located("no nodule", "right"), tmp_path, quarantine, "There is no nodule.", "no", counterfactuals=False)
    assert made == "downsampled"


REPORT = "The heart is normal. There is a small nodule in the left upper lung.\nNo pleural effusion."
TRUTH = "There is a small nodule in the right upper lung. No pleural effusion. Normal heart."


@pytest.mark.parametrize(
    "wrong, report, result",
    [
        (["left"], REPORT.replace("left", "right"), REPORT.replace("left", "right")),
        (["left"], REPORT.replace("left", "right").replace("\n", " "), REPORT.replace("left", "right")),
        (["left"], REPORT, "nothing_changed"),
        ([], REPORT, "disputed"),
        (["left"], REPORT.replace("normal", "unremarkable"), "synonym_only"),
        (["left"], REPORT.replace("left", "right").replace("There is", "We see"), "outside_claim"),
        (["left"], REPORT.replace("left upper", "left lower"), "still_wrong"),
        (["left"], REPORT.replace("There is a small nodule in the left", "A small nodule lies in the right"),
         "over_budget"),
        (["left"], "", "over_budget"),
        (["left"], TRUTH, "over_budget"),
    ],
)  # fmt: skip
def test_a_report_is_repaired_or_left_out_with_its_reason(
    wrong: list[str], report: str, result: str, tmp_path: Path, quarantine: Quarantine
) -> None:
    reply = {"RepairedReport": {"wrong": wrong, "report": report}}
    made = one(reply, tmp_path, quarantine, REPORT, TRUTH, task="report")
    assert (made.chosen if isinstance(made, Pair) else made) == result


@pytest.mark.parametrize(
    "report, result",
    [
        (TRUTH.replace("right", "left"), "side"),
        (TRUTH.replace("No pleural", "A pleural"), "presence"),
        (TRUTH.replace("small nodule", "small mass"), "finding"),
        (TRUTH.replace("Normal", "Unremarkable"), "synonym_only"),
        (TRUTH, "nothing_changed"),
    ],
)
def test_a_right_report_gets_one_error(report: str, result: str, tmp_path: Path, quarantine: Quarantine) -> None:
    reply = {"RepairedReport": {"wrong": [], "report": TRUTH}, "InjectedReport": {"changed": "it", "report": report}}
    made = one(reply, tmp_path, quarantine, TRUTH, TRUTH, task="report")
    if isinstance(made, Pair):
        assert (made.edit_kind, made.rejected, made.own, made.editor) == (result, report, "chosen", "llm")
    else:
        assert made == result


def test_a_row_that_is_left_out_names_its_file_and_row(quarantine: Quarantine) -> None:
    made = example("yes")
    made.row = 7
    build_pairs(
        [made], [answer(made, "The weather is fine.")], byte_level(), PairOptions(), quarantine, source="my.csv"
    )
    assert [(row["file"], row["row"], row["id"]) for row in quarantine.rows] == [("my.csv", 7, "e")]


@pytest.mark.parametrize(
    "own, reply, result",
    [
        ("It is on the left.", "It is on the right.", "It is on the right."),
        ("Line one.\nA “big” mass.", 'Line one. A "small" mass.', "Line one.\nA “small” mass."),
        ("No  edema — none.", "No edema - none.", "No  edema — none."),
        ("A mass. No edema.", "A mass. No mild edema.", "A mass. No mild edema."),
        ("A mass\nand edema.", "A nodule and edema.", "A nodule\nand edema."),
        ("A large mass.", "A mass.", "A mass."),
        ("Large mass  here.", "Mass here.", "Mass  here."),
        ("A mass.", "A mass. No edema.", "A mass. No edema."),
        ("A mass.", "Clearly a mass.", "Clearly a mass."),
        ("Mass.", "A Mass.", "A Mass."),
        ("A 5 mm mass.", "A 5.5 mm mass.", "A 5.5 mm mass."),
        ("A mass, small.", "A mass small.", "A mass small."),
        ("", "A mass.", "A mass."),
        ("A mass.", "", ""),
    ],
)
def test_only_differing_words_are_taken_over(own: str, reply: str, result: str) -> None:
    assert apply_diff(own, reply) == result


def test_a_claim_keeps_its_capital_and_its_end() -> None:
    assert apply_claim_diff("on the left", "On the right.") == "on the right"
    assert apply_claim_diff("Left", "right") == "Right"
    assert apply_claim_diff("an x-ray", "an MRI") == "an MRI"
    assert apply_claim_diff("It is left.", '"It is right."') == "It is right."


@pytest.mark.parametrize(
    "claim, found",
    [
        ("left lung", "left lung"),
        ("LEFT LUNG.", "left lung"),
        ('"left  lung"', "left lung"),
        ("5 mm", "5 mm"),
        ("the “left” lung", None),
        ("eft lung", None),
        ("", None),
        ("...", None),
    ],
)
def test_a_quoted_claim_is_found_as_words(claim: str, found: str | None) -> None:
    text = "A nodule of 5 mm in the left lung, and a cyst."
    at = find_claim(text, claim)
    assert (text[at[0] : at[1]] if at else None) == found


class Speaking:
    """Stands for the model being aligned: it replies as an oracle does, to text alone."""

    max_positions = 4096

    def __init__(self, oracle: Oracle) -> None:
        self.oracle, self.batches = oracle, []

    def prompt_ids(self, prompt: str, images: list[Any]) -> list[int]:
        assert not images
        return [0] * len(prompt.split())

    def generate(self, prompts: list[tuple[str, list[Any]]], *, max_new_tokens: int) -> list[Any]:
        self.batches.append(len(prompts))
        return [SimpleNamespace(token_ids=[1, 2], text=self.say(p), finish_reason="length") for p, _ in prompts]

    def say(self, prompt: str) -> str:
        head, _, data = prompt.rpartition("\n\n")
        stage = json.loads(head[head.index("{", head.index("JSON schema")) :])["title"]
        return "Well: " + json.dumps(self.oracle.reply(stage, json.loads(data))) + " And so on, and so on"


def test_the_model_itself_edits_in_batches_as_an_endpoint_would(tmp_path: Path, quarantine: Quarantine) -> None:
    examples, answers = corpus(2)
    oracle = Oracle(examples, answers)
    vlm = Speaking(oracle)
    given = PairOptions.model_validate({"editor": "self", "llm": {"cache": str(tmp_path)}})
    with open_backend(given, vlm=vlm, name="weights") as backend:
        pairs = build_pairs(examples, answers, byte_level(), given, quarantine, backend=backend)
    whole(pairs, answers, quarantine)
    assert len(pairs) == len(answers) and {p.editor for p in pairs} == {"self"}
    assert max(vlm.batches) > 10 and backend.usage()["replies"] == sum(vlm.batches)
    with serve(oracle) as server:
        other = build_pairs(
            examples, answers, byte_level(), options(server.url, tmp_path, llm={"timeout_s": 10}), quarantine
        )
    assert [(p.chosen, p.rejected, p.edit_kind) for p in pairs] == [(p.chosen, p.rejected, p.edit_kind) for p in other]
    asked = len(vlm.batches)
    with open_backend(given, vlm=vlm, name="weights") as backend:
        assert build_pairs(examples, answers, byte_level(), given, quarantine, backend=backend) == pairs
    assert len(vlm.batches) == asked and backend.usage()["cached"] == backend.usage()["replies"]
    with open_backend(given, vlm=vlm, name="other weights") as backend:
        build_pairs(examples, answers, byte_level(), given, quarantine, backend=backend)
    assert len(vlm.batches) == 2 * asked, "other weights have other replies"


def test_a_prompt_that_does_not_fit_into_the_model_is_a_row(tmp_path: Path, quarantine: Quarantine) -> None:
    examples, answers = corpus(1)
    vlm = Speaking(Oracle(examples, answers))
    vlm.max_positions = 100
    given = PairOptions.model_validate({"editor": "self", "llm": {"cache": "off"}})
    with open_backend(given, vlm=vlm) as backend:
        assert build_pairs(examples, answers, byte_level(), given, quarantine, backend=backend) == []
    assert {row["reason"] for row in quarantine.rows} == {"rejected"} and quarantine.count() == len(answers)
    with pytest.raises(UsageError, match="no model to ask"):
        build_pairs(examples, answers, byte_level(), given, quarantine)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"editor": "llm"}, "set pair.llm.base_url"),
        ({"editor": "llm", "llm": {"base_url": "http://x/v1"}}, "set pair.llm.model"),
        ({"editor": "replay", "llm": {"model": "m"}}, "set pair.replay"),
        ({"editor": "gpt"}, "'rule', 'llm', 'replay', 'self'"),
    ],
)
def test_a_recipe_that_leaves_out_what_the_editor_needs_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PairOptions.model_validate(given)
    assert words in str(caught.value)


def test_the_oracle_speaks_in_the_shapes() -> None:
    from clinalign.pairs import dialogue

    assert all(hasattr(dialogue, stage) for stage in STAGES)
    with pytest.raises(Exception, match="unparsable"):
        parse_reply('{"claim": "a", "verdict": "perhaps", "repaired": "b"}', dialogue.Located)
