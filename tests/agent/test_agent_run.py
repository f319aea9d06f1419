"""`clinalign agent`: a set asked with and without the agent, its folder, its page, its mistakes."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clinalign import agent_run
from clinalign.agent.backends import VLMBackend
from clinalign.agent_run import AgentRecipe, load_agent_recipe
from clinalign.cli import app
from clinalign.data.phantom.fundus_questions import CATEGORIES, GRADES, PLACES, SEEN, eye_questions
from clinalign.errors import UsageError
from clinalign.records import Example, Outcome, TraceStep
from clinalign.storage import read_table

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Two patients asked through the command, with a tiny model of random weights."""
    from tiny import tiny_llava

    folder = tmp_path_factory.mktemp("agent") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent_run, "_backends", lambda recipe, stack: [VLMBackend(tiny_llava())])
        done = CliRunner().invoke(app, ["agent", "phantom", "data.splits={test: 2}", "--out", str(folder)])
    assert done.exit_code == 0, done.output
    return folder, done.output


def test_both_are_asked_every_question_and_the_gain_has_an_interval(asked: tuple[Path, str]) -> None:
    folder, said = asked
    result = json.loads((folder / "evaluation" / "eh.json").read_text())
    examples = read_table(folder / "examples.parquet", Example)
    outcomes = read_table(folder / "outcomes.parquet", Outcome)
    base, system = result["systems"]
    assert system == f"{base} + agent" and result["items"] == len(examples) >= 20
    for name in (base, system):
        assert sum(o.system == name and o.condition == "clean" for o in outcomes) == len(examples)
        assert {"accuracy", "precision", "recall", "f1"} <= set(result["systems"][name]["glaucoma category"])
    legacy = [o for o in outcomes if o.condition == "fixed_order"]
    assert {o.system for o in legacy} == {base} and len(legacy) == sum(bool(e.fixed_order) for e in examples)
    gain = result["gain"]
    rights = {
        name: sum(bool(o.correct) for o in outcomes if o.system == name and o.condition == "clean")
        for name in (base, system)
    }
    assert gain["estimate"] == pytest.approx((rights[system] - rights[base]) / len(examples))
    assert gain["low"] <= gain["estimate"] <= gain["high"]
    assert rights[system] > rights[base]  # random weights, tools that read the image
    costs = result["costs"]
    assert costs[base]["calls"] == 1 and 1 <= costs[system]["calls"] <= 3
    assert 0 <= costs[system]["unsupported"] < costs[base]["unsupported"] and costs[system]["seconds"] > 0
    assert 0.5 < costs[system]["tools_alone"] <= 1
    assert f"{len(examples)} items {result['items_hash'][:12]}" in said and f"gain of the agent over {base}" in said


def test_every_sentence_resolves_to_a_trace_row_or_is_marked(asked: tuple[Path, str]) -> None:
    folder, _ = asked
    steps = read_table(folder / "trace.parquet", TraceStep)
    rows = {step.id for step in steps}
    last = {step.question_id: json.loads(step.output) for step in steps if step.step == "check"}
    assert set(last) == {e.id for e in read_table(folder / "examples.parquet", Example)}
    sentences = [sentence for output in last.values() for sentence in output["sentences"]]
    assert sentences and all(
        (s["status"] == "supported" and s["evidence"] and set(s["evidence"]) <= rows)
        or (s["status"] in ("refuted", "unsupported") and s["reason"])
        for s in sentences
    )
    run = [step for step in steps if step.step == "execute"]
    assert run and all(
        step.masks and all((folder / name).is_file() for name in step.masks) for step in run if not step.error
    )


def test_the_page_links_every_sentence_and_shows_what_each_step_saw(asked: tuple[Path, str]) -> None:
    folder, _ = asked
    page = (folder / "agent.html").read_text(encoding="utf-8")
    anchors = set(re.findall(r'id="([^"]+)"', page))
    links = re.findall(r'href="#([^"]+)"', page)
    assert links and set(links) <= anchors
    items = re.findall(r'<li class="(\w+)">(.*?)</li>', page, re.S)
    assert items
    for status, text in items:
        assert ("<a href=" in text) if status == "supported" else f"{status}: " in text
    assert page.count("data:image/png;base64,") > 20 and "not for clinical use" in page and "<script" not in page
    assert "always A" in page and "With and without the agent" in page and "fixed order" in page


def test_a_page_without_images_holds_none(asked: tuple[Path, str]) -> None:
    from clinalign.pages.agent import agent_section

    section = agent_section(asked[0], images=False, shown=3)
    assert len(section["questions"]) == 3 and not any(q["images"] for q in section["questions"])
    assert not any(step["masks"] for q in section["questions"] for step in q["steps"])


def test_what_options_state_is_read_by_the_checker() -> None:
    """Every statement of the phantom's options is supported by the facts of an eye of which it is true."""
    from clinalign.agent import Fact, check_text
    from clinalign.data.phantom.fundus import Eye, Lesion

    eye = Eye(1, "OD", (Lesion("exudate", "superior nasal"), Lesion("exudate", "inferior temporal")), 70, 30)
    facts = [("q/1", Fact(finding="exudate", corners=("superior nasal", "inferior temporal")))]
    [places] = [a.statements for a in eye_questions(eye) if a.finding]
    found = {place: check_text(said, facts)[0].status for place, said in places.items()}
    assert [place for place, status in found.items() if status == "supported"] == [
        "Inferior, Nasal, Superior, Temporal"
    ]
    assert set(found) == set(PLACES) and set(found.values()) == {"supported", "refuted"}
    for said, value in [*((s, float(i)) for i, s in enumerate(GRADES.values()))]:
        status = [
            check_text(said, [("q", Fact(finding="retinopathy grade", value=float(n)))])[0].status for n in range(5)
        ]
        assert [n for n, s in enumerate(status) if s == "supported"] == [value]
    for key, (_, said) in CATEGORIES.items():
        for other in CATEGORIES:
            [sentence] = check_text(said, [("q", Fact(finding="glaucoma category", value=other))])
            assert sentence.status == ("supported" if key == other else "refuted")
    none = [("q", Fact(finding=f, status="absent")) for f in ("exudate", "retinal hemorrhage", "microaneurysm")]
    assert [s.status for s in check_text(SEEN["No lesions"], none)] == ["supported"]


def test_the_example_recipe_is_valid_and_mistakes_are_one_line(tmp_path: Path) -> None:
    recipe = load_agent_recipe(str(ROOT / "examples" / "agent" / "phantom.yaml"), ["agent.retries=1", "model=here"])
    assert isinstance(recipe, AgentRecipe) and recipe.agent.retries == 1 and recipe.model == "here"
    for overrides, said in (
        (["agent.retires=1"], "unknown key 'agent.retires'"),
        (["model=''"], "nobody is asked; set model or llm.base_url"),
        (["agent"], "an override is key=value"),
    ):
        with pytest.raises(UsageError, match=said):
            load_agent_recipe("phantom", overrides)
    with pytest.raises(UsageError, match="no such recipe"):
        load_agent_recipe("nowhere.yaml")


def test_an_openai_compatible_model_is_compared_in_the_same_way(tmp_path: Path) -> None:
    from loopback import serve

    def speak(body: dict[str, Any]) -> str:
        """Says the first letter that it may; states nothing of its own."""
        said = json.dumps(body["messages"])
        return json.dumps({"letter": re.findall(r"one option among ([A-E])", said)[0], "tools": tools_in(said)})

    def tools_in(said: str) -> list[str]:
        listed = re.search(r"you were given: ([\w, ]+)", said)
        return listed[1].split(", ") if listed else []

    with serve(speak) as server:
        overrides = ["data.splits={test: 1}", "model=''", f"llm.base_url={server.url}", "llm.model=m", "llm.cache=off"]
        result = agent_run.run_agent(load_agent_recipe("phantom", overrides), tmp_path)
    assert list(result["systems"]) == ["m", "m + agent"] and result["costs"]["m"]["calls"] == 1
    accuracy = {name: groups["all"]["accuracy"]["estimate"] for name, groups in result["systems"].items()}
    assert accuracy["m"] == result["baselines"]["always_A"]["all"]["estimate"] < accuracy["m + agent"]


@pytest.mark.slow
def test_a_model_and_an_endpoint_stand_in_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked in the folder of a run: the run's own tables stay as they are, its page gets the section."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "pages")
    from folders import make_run
    from loopback import serve
    from tiny import tiny_llava

    run = make_run(tmp_path / "run")
    before = {name: (run / name).read_bytes() for name in ("examples.parquet", "outcomes.parquet")}
    backends = agent_run._backends
    asked = {"data.splits={test: 1}", "llm.model=m", "llm.cache=off"}

    def both(recipe: AgentRecipe, stack: ExitStack) -> list[Any]:
        return [VLMBackend(tiny_llava()), *backends(recipe.model_copy(update={"model": ""}), stack)]

    monkeypatch.setattr(agent_run, "_backends", both)
    with serve(lambda body: json.dumps({"letter": "B", "text": "The patient feels well."})) as server:
        command = ["agent", "phantom", *asked, f"llm.base_url={server.url}", "--out", str(run)]
        done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert before == {name: (run / name).read_bytes() for name in before}
    result = json.loads((run / "agent" / "evaluation" / "eh.json").read_text())
    tiny, *_ = result["systems"]
    systems = [tiny, f"{tiny} + agent", "m", "m + agent"]
    assert list(result["systems"]) == systems and list(result["gains"]) == [tiny, "m"]
    for name in systems:
        assert {"calls", "seconds", "unsupported"} <= set(result["costs"][name])
    assert result["costs"]["m"]["unsupported"] == 1  # one sentence an answer, and nothing carries it
    assert result["costs"]["m + agent"]["unsupported"] == 1
    page = (run / "report.html").read_text(encoding="utf-8")
    section = page[page.index('<section id="agent">') :].partition("</section>")[0]
    assert 'href="#agent"' in page and "With and without the agent" in section
    for name in systems:
        assert section.count(f"<td>{name}</td>") >= 5  # four subclasses and all
        assert f'<th scope="row">{name}</th>' in section
    assert "unsupported: " in section and "data:image/png;base64," in section
    anchors = re.findall(r'id="([^"]+)"', page)
    assert len(anchors) == len(set(anchors)) and set(re.findall(r'href="#([^"]+)"', section)) <= set(anchors)
    CliRunner().invoke(app, ["report", str(run), "--no-images"], catch_exceptions=False)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert '<section id="agent">' in page and "data:image/" not in page


def test_two_of_one_name_are_refused() -> None:
    recipe = load_agent_recipe("phantom", ["model=embedded", "llm.base_url=http://127.0.0.1:9", "llm.model=embedded"])
    with ExitStack() as stack, pytest.raises(UsageError, match="both called embedded"):
        agent_run._backends(recipe, stack)


def test_questions_without_options_are_refused(tmp_path: Path) -> None:
    recipe = load_agent_recipe("phantom", ["data={source: phantom, splits: {test: 1}}"])
    with pytest.raises(UsageError, match="questions without options"):
        agent_run.run_agent(recipe, tmp_path)


def test_further_tools_come_from_the_recipe() -> None:
    given: dict[str, Any] = {"far": {"url": "https://tools.example/x", "description": "x", "covers": ["drusen"]}}
    tools = agent_run._tools(AgentRecipe(tools=given), None)
    assert [tool.name for tool in tools][-2:] == ["look_again", "far"] and tools[-1].covers == {"drusen"}
    with pytest.raises(UsageError, match="tools.bad: give url and description"):
        agent_run._tools(AgentRecipe(tools={"bad": {"url": "https://x.example"}}), None)
