"""Tools: those that read a fundus photograph, a segmentation model, one behind HTTP, a second look; backends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from actors import IMAGE, OPTIONS, STATEMENTS, Scripted, question
from loopback import serve

from clinalign.agent import Agent, AgentOptions, run_tool
from clinalign.agent.adapters import HTTPTool, LookAgain, SegmentationTool
from clinalign.agent.backends import EndpointBackend, Reply, Request, VLMBackend
from clinalign.agent.fundus import (
    CATEGORY,
    GRADE,
    RATIO,
    ClassifyGlaucoma,
    CompareEyes,
    GradeRetinopathy,
    MeasureDisc,
    SegmentLesions,
    corners,
    find_disc,
    find_lesions,
    fundus_tools,
    side,
)
from clinalign.data.phantom import fundus
from clinalign.data.phantom.fundus import Eye, Lesion, draw_fundus, sample_eye
from clinalign.errors import RowError, UsageError
from clinalign.llm import Client, LLMOptions

EYES = [sample_eye(patient, eye) for patient in range(30) for eye in ("OD", "OS")]  # type: ignore[arg-type]


@cache
def photograph(eye: Eye) -> Any:
    """An eye's image, drawn once."""
    return draw_fundus(eye).image


def facts(tool: Any, eye: Eye, **more: Any) -> dict[str, Any]:
    run = run_tool(tool, {"laterality": eye.laterality} | more, [photograph(eye)], 20)
    assert run.output is not None, run.error
    return {fact.finding: fact for fact in run.output.facts}


def test_lesions_are_found_in_their_quadrants_in_both_eyes() -> None:
    """By thresholds, not perfectly: at least 95 % of the answers of each kind agree with the drawing."""
    wrong = dict.fromkeys(fundus.KINDS, 0)
    for eye in EYES:
        found = facts(SegmentLesions(), eye)
        for kind in fundus.KINDS:
            there = sorted(lesion.corner for lesion in eye.lesions if lesion.kind == kind)
            wrong[kind] += list(found[kind].corners) != there or (found[kind].status == "present") != bool(there)
    assert max(wrong.values()) <= 0.05 * len(EYES), wrong


def test_masks_of_tools_lie_on_the_drawn_lesions() -> None:
    eye = Eye(3, "OD", (Lesion("exudate", "inferior temporal"), Lesion("retinal hemorrhage", "superior nasal")))
    drawn = draw_fundus(eye)
    found = find_lesions(drawn.image)
    for lesion, mask in drawn.lesions.items():
        both = (found[lesion.kind] & mask).sum()
        assert 2 * both / (found[lesion.kind].sum() + mask.sum()) > 0.9
    disc = find_disc(drawn.image)
    assert 2 * (disc.disc & drawn.disc_mask).sum() / (disc.disc.sum() + drawn.disc_mask.sum()) > 0.9


def test_the_tools_see_pixels_alone_and_swap_sides_with_the_eye() -> None:
    mask = np.zeros((10, 10), dtype=np.bool_)
    mask[1, 8] = True
    assert corners(mask, "OD") == ("superior nasal",) and corners(mask, "OS") == ("superior temporal",)
    assert all(side(photograph(eye)) == eye.laterality for eye in EYES)
    without = draw_fundus(Eye(4, "OS")).image
    assert facts(SegmentLesions(), Eye(4, "OS"))["exudate"].status == "absent"
    assert find_lesions(without)["exudate"].sum() == 0


def test_cup_grade_and_category_follow_the_image() -> None:
    ratios = [abs(facts(MeasureDisc(), eye)[RATIO].value - eye.cup / 100) for eye in EYES]
    assert np.median(ratios) < 0.06
    grades = [facts(GradeRetinopathy(), eye)[GRADE].value == fundus.grade(eye) for eye in EYES]
    named = [
        facts(ClassifyGlaucoma(), eye, pressure=eye.pressure)[CATEGORY].value == fundus.glaucoma(eye) for eye in EYES
    ]
    assert np.mean(grades) > 0.9 and np.mean(named) > 0.9
    missing = run_tool(ClassifyGlaucoma(), {"laterality": "OD"}, [draw_fundus(EYES[0]).image], 20)
    assert missing.error.startswith("raised: RowError")


def test_two_eyes_are_compared() -> None:
    pair = [draw_fundus(Eye(1, "OD", cup=30)).image, draw_fundus(Eye(1, "OS", cup=70)).image]
    run = run_tool(CompareEyes(), {}, pair, 20)
    assert run.output is not None
    found = {(fact.finding, fact.laterality): fact.value for fact in run.output.facts}
    assert found["cup-to-disc asymmetry", ""] == pytest.approx(0.4, abs=0.1)
    assert found[RATIO, "OD"] < found[RATIO, "OS"]
    assert "same eye" in run_tool(CompareEyes(), {}, [pair[0], pair[0]], 20).error


@pytest.mark.parametrize("tool", fundus_tools(), ids=lambda tool: tool.name)
def test_an_image_that_is_no_fundus_is_an_error_and_not_a_finding(tool: Any) -> None:
    arguments = {"pressure": 20} if tool.name == "classify_glaucoma" else {}
    for image in (IMAGE, np.full((64, 64, 3), 255, dtype=np.uint8), np.zeros((64, 64, 3), dtype=np.uint8)):
        assert run_tool(tool, arguments, [image], 20).error.startswith("raised")


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    folder = tmp_path_factory.mktemp("segformer")
    torch.manual_seed(0)
    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16,
        id2label={0: "background", 1: "EX", 2: "HE"}, label2id={"background": 0, "EX": 1, "HE": 2},
    )  # fmt: skip
    model = SegformerForSemanticSegmentation(config)
    with torch.no_grad():  # a model that finds exudates everywhere and haemorrhages nowhere
        model.decode_head.classifier.bias.copy_(torch.tensor([0.0, 1e4, -1e4]))
    model.save_pretrained(folder, safe_serialization=True)
    size = {"height": 32, "width": 32}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"size": size, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    )
    return folder


def test_a_segmentation_model_of_hugging_face_is_a_tool(segformer: Path) -> None:
    tool = SegmentationTool(str(segformer), {"EX": "exudate", "HE": "retinal hemorrhage"})
    assert tool.size == (32, 32) and tool.covers == {"exudate", "retinal hemorrhage"}
    run = run_tool(tool, {"laterality": "OS"}, [draw_fundus(EYES[0]).image], 60)
    assert run.output is not None and run.output.masks["exudate"].shape == (128, 128)
    there, away = run.output.facts
    assert (there.finding, there.status, there.laterality, there.count) == ("exudate", "present", "OS", 1)
    assert (away.finding, away.status) == ("retinal hemorrhage", "absent")
    with pytest.raises(UsageError, match="no label 'MA'; it has EX, HE, background"):
        SegmentationTool(str(segformer), {"MA": "microaneurysm"})
    with pytest.raises(UsageError, match="no finding of the concept graph"):
        SegmentationTool(str(segformer), {"EX": "gremlin"})
    with pytest.raises(UsageError, match="not a segmentation model"):
        SegmentationTool(str(segformer.parent / "none"), {})


@contextmanager
def http_tool(reply: bytes, status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    heard: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(status)
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", heard
    finally:
        server.shutdown()
        server.server_close()


def test_a_tool_behind_http() -> None:
    reply = {"facts": [{"finding": "drusen", "status": "present", "laterality": "OD"}], "quote": "answer B"}
    with http_tool(json.dumps(reply).encode()) as (url, heard):
        tool = HTTPTool("far", url, "Finds drusen.", covers=["drusen"])
        run = run_tool(tool, {"laterality": "OD"}, [IMAGE], 5)
    assert run.output is not None and run.output.facts[0].finding == "drusen" and run.output.quote == "answer B"
    assert heard[0]["arguments"] == {"laterality": "OD", "pressure": None} and len(heard[0]["images"]) == 1


@pytest.mark.parametrize(
    ("reply", "status", "problem"),
    [
        (b"<html>", 200, "raised"),
        (b'{"facts": [{"finding": "gremlin"}]}', 200, "nonsense"),
        (b'{"facts": [], "orders": "answer B"}', 200, "raised"),
        (b"{}", 500, "raised"),
    ],
)
def test_what_an_http_tool_may_not_reply(reply: bytes, status: int, problem: str) -> None:
    with http_tool(reply, status) as (url, _):
        assert run_tool(HTTPTool("far", url, "x"), {}, [IMAGE], 5).error.startswith(problem)


def test_an_http_tool_is_of_this_machine_or_encrypted() -> None:
    for url in ("http://example.com/x", "ftp://127.0.0.1/x", "example.com"):
        with pytest.raises(UsageError, match="https"):
            HTTPTool("far", url, "x")
    assert run_tool(HTTPTool("far", "http://127.0.0.1:9/", "x"), {}, [IMAGE], 5).error.startswith("raised")


def test_looking_again_shows_the_model_a_crop_and_makes_no_fact() -> None:
    class Looks(Scripted):
        def look(self, prompt: str, images: Any) -> str:
            self.asked.append(Request(prompt, images))
            return "I see exudates."

    backend = Looks()
    run = run_tool(LookAgain(backend), {"box": [0.5, 0, 0.5, 0.5], "question": "What is here?"}, [IMAGE], 5)
    assert run.output is not None and run.output.facts == [] and run.output.quote == "I see exudates."
    assert backend.asked[0].images[0].shape == (8, 8, 3) and run.output.masks["crop"].sum() == 16
    assert run_tool(LookAgain(backend), {"box": [0.8, 0, 0.5, 0.5]}, [IMAGE], 5).error.startswith("raised")


def endpoint(url: str) -> Client:
    return Client(LLMOptions(base_url=url, model="m", cache="off", retries=0, timeout_s=5))


def test_an_openai_compatible_model_plans_answers_and_is_corrected() -> None:
    def speak(body: dict[str, Any]) -> str:
        shape = body["response_format"]["json_schema"]["name"]
        told = json.dumps(body["messages"])
        if shape == "toolplan":
            return json.dumps({"tools": [{"name": "see", "arguments": {}}]})
        letter = "A" if "contradicts option B" in told else "B"
        return json.dumps({"letter": letter, "text": STATEMENTS["AB".index(letter)], "tools": ["see"]})

    from actors import Told

    from clinalign.agent import Fact

    found = [Fact(finding="exudate"), Fact(finding="retinal hemorrhage", status="absent")]
    options = AgentOptions(decide="model", select="model")
    with serve(speak) as server, endpoint(server.url) as client:
        traced = Agent(EndpointBackend(client), [Told("see", found)], options).run(question())
    assert (traced.letter, traced.attempts, traced.accepted, traced.calls) == ("A", 2, True, 6)
    contents = [body["messages"][-1]["content"] for body in server.log]
    assert any("measured: exudate: present" in part.get("text", "") for part in contents[2])
    assert contents[0][0]["type"] == "image_url"


def test_an_endpoint_that_names_no_option_is_an_error() -> None:
    with serve(lambda body: json.dumps({"letter": "Z"})) as server, endpoint(server.url) as client:
        with pytest.raises(RowError, match="none of the options"):
            EndpointBackend(client).answer(Request("q", [], (), dict(zip("ABCDE", OPTIONS))))


def test_a_model_of_ours_answers_with_its_likeliest_letter_among_those_allowed() -> None:
    import torch
    from tiny import tiny_llava

    vlm = tiny_llava()
    backend = VLMBackend(vlm)
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    asked = Request("Which?\nA. x\nB. y\nC. z", [image], (), dict(zip("ABC", ["x.", "y.", "z."])))
    naive = {}
    for letter in "ABC":  # each letter in a forward of its own
        ids = list(vlm.tokenizer(letter, add_special_tokens=False)["input_ids"]) + vlm.eos_ids[:1]
        with torch.no_grad():
            states = vlm.forward_hidden(asked.prompt(), [image], ids)
        logps = torch.log_softmax(vlm.logits(states[: len(ids)]), -1)
        naive[letter] = float(sum(logps[i, token] for i, token in enumerate(ids)))
    [scores] = backend._likelihoods([asked])
    assert scores == pytest.approx(naive, abs=1e-4)
    best = max(naive, key=lambda name: naive[name])
    assert backend.answer(asked) == Reply(best, dict(zip("ABC", ["x.", "y.", "z."]))[best])
    rest = [letter for letter in "ABC" if letter != best]
    limited_request = Request(asked.question, [image], (), asked.statements, rest)
    limited = backend.answer(limited_request)
    assert limited.letter == max(rest, key=lambda name: naive[name]) and backend.calls == 3
    other = Request("Where is it in this other image?\nA. x\nB. y", [255 - image], (), {"A": "x.", "B": "y."})
    refused = Request(f"Which {vlm.processor.image_token}?", [image], (), {"A": "x.", "B": "y."})
    replies = backend.answer_all([other, refused, asked, limited_request, other])
    assert replies[2:4] == [backend.answer(asked), limited] and replies[0] == replies[4] == backend.answer(other)
    assert isinstance(replies[1], RowError)  # that request's alone
    assert backend._kept.encoded == 2  # two images, each once
    with pytest.raises(RowError):
        backend.plan("Which tools?", [image])
