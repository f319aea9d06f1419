"""The page as text: nothing unescaped, nothing from outside, the stated selection, figures, contrast."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from clinalign.errors import UsageError
from clinalign.evaluation import summarise
from clinalign.evaluation.cases import SHOWN, changes, shown_examples
from clinalign.measuring.options import EvaluationOptions
from clinalign.pages import cards, write_report
from clinalign.pages.cards import pair_cards, shown_rule
from clinalign.pages.figures import intervals, tradeoff
from clinalign.pages.markup import difference, shaded, spans_marked
from clinalign.pages.pictures import mask_path, picture
from clinalign.pages.results import cell, fell, fitting, headline
from clinalign.pages.tables import evidence_tables, result_tables
from clinalign.records import Measurement, Outcome
from clinalign.storage import write_json, write_table

sys.path.insert(0, str(Path(__file__).parent))
from folders import BREAK, SCRIPT, examples, make_run, outcomes, pairs

HERE = Path(cards.__file__).parent


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str, name: str = "") -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and (not name or name in (a.get("class") or "").split())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def test_every_text_is_shown_as_text(page: Page) -> None:
    assert len(page.of("script")) == 1
    assert page.text.count(SCRIPT) >= 6 and BREAK in page.text
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert all((a["src"] or "data:").startswith("data:image/") for a in page.of("img") if "src" in a)


def test_no_other_script_may_run_and_nothing_may_be_fetched(page: Page, folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    script = text[text.index("<script>", text.rindex("</dialog>")) + 8 : text.rindex("</script>")]
    policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv")) or ""
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;") and "http" not in policy
    assert not re.findall(r"""(?:src|href|action|poster|data)\s*=\s*["']?(?:https?:)?//""", text)
    assert "url(" not in (HERE / "report.css").read_text() and "@import" not in (HERE / "report.css").read_text()


def test_what_got_worse_has_its_own_section_and_no_verdict_is_not_wrong(page: Page) -> None:
    kinds = [a["data-kind"] for a in page.of("article", "case")]
    assert sorted(kinds) == sorted(["fixed"] * 4 + ["broken", "wrong", "right", "unjudged"] * 2)
    assert kinds[-2:] == ["broken", "broken"]
    for mark in ("✓ right", "✗ wrong", "? no verdict", "Corpus audit: ! warnings", "✗ ignores the image"):
        assert mark in page.text


def test_what_only_some_runs_measure_is_shown_where_it_is(page: Page, folder: Path) -> None:
    """An attention ratio of 1.5 between 0.00 and 0.04; shares of 0.02 as per cent; an old summary has none of them."""
    for text in (
        "Attention in the outline, layer by layer",
        "By strength of the noise",
        "Reports",
        "vqa-rad<i>",
        "51.2",
    ):
        assert text in page.text, text
    for text in (
        "Are the rewarded words the claim?",
        "Asked for and not run: green (needs a download)",
        "ignores the image: 2.0 %",
    ):
        assert text in page.text, text
    summary = json.loads((folder / "evaluation" / "summary.json").read_text())
    tables = {t["head"]: t for t in evidence_tables(summary, ["base", "firempo"])}
    assert tables["Decoder layer"]["rows"][0]["cells"][0] == {"value": "1.50", "interval": "0.00 to 0.04"}
    assert tables["SD of the noise"]["rows"][1]["cells"][0] == {"value": "2.0", "interval": "0.0 to 4.0"}
    bare = {"systems": {name: {"metrics": {}} for name in ("base", "firempo")}}
    assert evidence_tables(bare, ["base", "firempo"]) == result_tables(bare, ["base", "firempo"]) == []


def test_accuracy_over_drift_is_drawn_where_drift_was_measured() -> None:
    rows = [example for example in examples() if example.split == "test"]
    moved = {"base": 0.0, "firempo": 0.25}
    drifts = [Measurement(e.id, s, "greedy", 0, "clean", "drift_rest", d) for e in rows for s, d in moved.items()]
    options = EvaluationOptions(resamples=100, permutations=100)
    found, bare = (summarise(outcomes(rows), rows, options, measurements=of) for of in (drifts, []))
    drawn = headline(found, list(moved))["frontier"]
    assert "FiRe-MPO" in drawn and ">0.38<" in drawn and headline(bare, list(moved))["frontier"] is None


def test_what_drifts_far_beyond_what_was_read_is_counted_and_names_do_not_lie_upon_each_other() -> None:
    value = {"estimate": 0.01, "low": 0.01, "high": 0.02}
    read = [(name, value, value) for name in ("a", "b")]
    drawn = tradeoff([(0.02, 0.5, True), (5.0, 0.4, False)], read)
    assert "1 tried setting drifts further" in drawn and drawn.count('r="3"') == 1
    first, second = (float(y) for y in re.findall(r'y="([-.0-9]+)" font-size', drawn))
    assert second - first >= 12 and "further" not in tradeoff([], read)


def test_a_system_without_an_estimate_is_left_out_of_the_figure() -> None:
    """None of its answers can be read, or its drift was not measured."""
    value, none = ({"estimate": e, "low": e, "high": e} for e in (0.4, None))
    read = [("seen", value, value), ("no answer", value, none), ("no drift", none, value)]
    assert tradeoff([], read) == tradeoff([], read[:1])
    assert "seen" in tradeoff([], read) and "no answer" not in tradeoff([], read)
    assert tradeoff([(0.1, 0.5, True)], read[1:]) == tradeoff([], []) == ""


def test_numbers_that_fell_are_named() -> None:
    row = {"metric": "style_preserved", "a": "firempo", "b": "base", "estimate": -0.051, "low": -0.07, "high": -0.03}
    rows = [row, row | {"a": "dpo", "high": 0.01}, row | {"metric": "words"}, row | {"b": "dpo"}]
    assert fell({"comparisons": rows}, ["base", "firempo"]) == ["FiRe-MPO, style preserved: −5.1 points [−7.0, −3.0]"]


def test_examples_are_chosen_by_the_stated_rule() -> None:
    """Question kinds in turn, those with a region first: of 40 fixed ones, 12, four of each kind, all with a region."""
    rows = [e for e in examples(12)]
    many = {f"{e.id}-{n}": e for n in range(20) for e in rows}
    for id, example in list(many.items()):
        many[id] = type(example)(**{f: getattr(example, f) for f in example.__slots__} | {"id": id})
    answers = [o for n in range(20) for o in outcomes(rows)]
    for n, o in enumerate(answers):
        o.example_id = f"{o.example_id}-{n * 20 // len(answers)}"
    shown = shown_examples(many, answers, ("base", "firempo"))
    kinds = changes(many, answers, ("base", "firempo"))
    assert len(shown) == sum(min(len(ids), SHOWN[kind]) for kind, ids in kinds.items())
    fixed = [e for e in shown if e.id in kinds["fixed"]]
    assert len(fixed) == 12 and all(e.regions for e in fixed)
    assert len(shown_examples(many, answers, ("base", "firempo"), 3)) > len(shown)


@pytest.mark.parametrize(("count", "expected"), [(0, 6), (6, 6), (4, 3), (1, 1)])
def test_pairs_are_spread_over_the_table(count: int, expected: int, folder: Path) -> None:
    made = pairs(examples())
    shown = pair_cards(made, {e.id: e for e in examples()}, folder, count)
    assert len(shown) == expected and json.loads(shown[0]["data"])["pair"] == made[0].id
    rule = shown_rule(len(shown), len(made))
    assert rule.startswith("All 6" if expected == 6 else f"{expected} of 6 pairs")


def test_a_decision_row_carries_what_the_pair_says(page: Page) -> None:
    rows = [json.loads(a["data-pair"] or "") for a in page.of("article", "edit")]
    assert [(r["pair"], r["chosen"], r["own"]) for r in rows] == [(p.id, p.chosen, p.own) for p in pairs(examples())]


def test_the_page_says_how_to_reproduce(page: Page) -> None:
    assert "clinalign run recipe.yaml --out again" in page.text and "torch==2.13.0\n" in page.text
    assert "accelerate==" not in page.text and "pairs.parquet 0000000000" in page.text


@pytest.mark.parametrize("model", ["embedded", "embedded2"])
def test_a_page_of_real_images_says_what_an_embedded_model_knows(model: str, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    state = json.loads((copy / "run.json").read_text())
    state["recipe"] |= {"model": model}
    state["recipe"]["data"] |= {"source": "table"}
    write_json(copy / "run.json", state)
    assert "knows drawn phantoms only" in write_report(copy).read_text(encoding="utf-8")


def test_figures_are_written_and_are_the_same_bytes_again(folder: Path) -> None:
    figures = folder / "evaluation" / "figures"
    write_report(folder)
    first = {p.name: p.read_bytes() for p in figures.iterdir()}
    names = ("accuracy", "difference", "flips", "kinds", "training")
    assert set(first) == {f"{name}{end}" for name in names for end in (".png", ".svg")}
    assert first["accuracy.png"].startswith(b"\x89PNG") and b"<svg" in first["accuracy.svg"]
    shutil.rmtree(figures)
    write_report(folder)
    assert {p.name: p.read_bytes() for p in figures.iterdir()} == first


def test_a_figure_is_drawn_anew_where_it_is_torn_or_of_other_numbers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clinalign.pages import plots

    copy = shutil.copytree(folder, tmp_path / "run")
    write_report(copy)
    figures, drawn, save = copy / "evaluation" / "figures", [], plots._save
    before = {p.name: p.read_bytes() for p in figures.iterdir()}

    def saving(figure: object, path: Path, key: str) -> None:
        drawn.append(path.name)
        save(figure, path, key)

    monkeypatch.setattr(plots, "_save", saving)
    write_report(copy)
    assert drawn == []
    (figures / "kinds.png").write_bytes(before["kinds.png"][:-9])
    (figures / "flips.svg").unlink()
    write_report(copy)
    assert sorted(drawn) == ["flips.png", "flips.svg", "kinds.png", "kinds.svg"]
    assert {p.name: p.read_bytes() for p in figures.iterdir()} == before
    summary = json.loads((copy / "evaluation" / "summary.json").read_text())
    summary["systems"]["firempo"]["metrics"]["accuracy"]["estimate"] += 0.01
    write_json(copy / "evaluation" / "summary.json", summary)
    drawn.clear()
    monkeypatch.setattr(plots, "_save", lambda figure, path, key: drawn.append(path.name))
    write_report(copy)
    assert sorted(drawn) == sorted(before), "every figure says what it was drawn from"


def test_a_folder_with_nothing_but_a_state_has_a_page(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text((folder / "run.json").read_text())
    found = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert not found.of("article") and "No record was left out" in found.text
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UsageError, match="not valid JSON"):
        write_report(tmp_path)


def test_a_run_that_evaluated_the_base_alone_has_no_examples(folder: Path, tmp_path: Path) -> None:
    for name in ("run.json", "examples.parquet", "images"):
        source = folder / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    alone = [o for o in outcomes(examples()) if o.system == "base"]
    write_table(tmp_path / "outcomes.parquet", alone, Outcome)
    write_json(tmp_path / "evaluation" / "summary.json", summarise(alone, examples(), EvaluationOptions(resamples=100)))
    found = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert not found.of("article") and "Before and after" not in found.text and "Right answers, per cent" in found.text


def test_an_image_that_is_gone_leaves_its_card(folder: Path, tmp_path: Path) -> None:
    made = pairs(examples())[:1]
    (card,) = pair_cards(made, {}, tmp_path)
    assert card["images"] == [] and card["truth"] == ""
    assert picture(tmp_path / "none.png") is None


def test_shading_follows_the_rewards_and_escapes() -> None:
    """1.0 nats of 2.0 are half the shade; 0.01 is too faint; overlapping and empty ranges are left alone."""
    found = shaded("<b> no x", [[0, 3, 1.0], [3, 6, -4.0], [4, 6, 1.0], [6, 6, 2.0], [6, 8, 0.01]])
    assert found == (
        '<span class="tok up" style="--d:0.50" title="+1.00 nats">&lt;b&gt;</span> '
        '<span class="tok down" style="--d:1.00" title="−4.00 nats">no</span> x'
    )


def test_differences_are_marked_on_both_sides() -> None:
    before, after = difference("It is <left> here.", "It is <right> here now.")
    assert before == "It is <del>&lt;left&gt;</del> <del>here.</del>" or "<del>&lt;left&gt; here.</del>" in before
    assert "<ins>" in after and "&lt;right&gt;" in after
    assert difference("same", "same") == ("same", "same")
    assert spans_marked("a<b", [[1, 2], [3, 3]], "chosen").count("<mark") == 2


def test_a_mask_becomes_its_outline() -> None:
    """One pixel at row 1, column 2: four edges."""
    mask = np.zeros((3, 4), bool)
    mask[1, 2] = True
    assert sorted(re.findall(r"M\d+ \d+[hv]\d+", mask_path(mask))) == ["M2 1h1", "M2 1v1", "M2 2h1", "M3 1v1"]


def test_a_forest_row_lies_where_its_numbers_say() -> None:
    """50 of 0 to 100 is in the middle; bounds beyond the axis stop at its ends."""
    found = str(intervals([("a<", 50.0, -10.0, 120.0, "main")], low=0.0, high=100.0))
    assert '<i class="dot" style="left:50.00%">' in found and "left:0.00%;right:calc(100% - 100.00%)" in found
    assert "a&lt;" in found and "a<" not in found.replace("a&lt;", "")


def luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb (WCAG 2.2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    values = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_enough_contrast_in_light_and_dark() -> None:
    """WCAG AA: 4.5 to 1 for text on every ground that it stands on; the dark colours are the same both ways in."""
    assert luminance("#fff") == pytest.approx(1.0) and luminance("#000000") == 0.0
    css = (HERE / "report.css").read_text()
    blocks = [dict(re.findall(r"--([\w-]+):(#\w+)", block)) for block in re.findall(r"\{(--[^{}]+)\}", css)]
    light, automatic, chosen = blocks[0], blocks[1], blocks[2]
    assert automatic == chosen and set(light) == set(chosen)
    for theme in (light, chosen, light | blocks[3]):
        pairs_ = [(ink, ground) for ink in ("ink", "soft", "accent") for ground in ("bg", "panel", "sunk")]
        pairs_ += [(ink, ground) for ink in ("good", "bad", "warn") for ground in ("bg", "panel")]
        pairs_ += [(f"c{n}", ground) for n in range(6) for ground in ("bg", "panel")]
        pairs_ += [("ink", "good-bg"), ("ink", "bad-bg"), ("on-accent", "accent")]
        for ink, ground in pairs_:
            above, below = sorted((luminance(theme[ink]), luminance(theme[ground])), reverse=True)
            assert (above + 0.05) / (below + 0.05) >= 4.5, (ink, ground, theme[ink], theme[ground])


def test_a_page_without_images_holds_no_pixel_and_says_so(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    with_images = write_report(copy).read_text(encoding="utf-8")
    assert "data:image" in with_images and "--no-images" in with_images
    without = write_report(copy, images=False).read_text(encoding="utf-8")
    assert "data:image" not in without and "Written without images" in without
    page = Page(without)
    assert not [a for a in page.of("img") if (a.get("src") or "").startswith("data:")]
    assert write_report(copy).read_text(encoding="utf-8") == with_images


@pytest.mark.parametrize("error", [MemoryError("no room"), ZeroDivisionError("\nstrange")], ids=["memory", "bug"])
def test_a_picture_that_cannot_be_drawn_is_left_out_and_the_page_is_written(
    error: Exception, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures of cards, attention maps and figures alike."""
    from clinalign.pages import pictures, plots

    def fails(*given: object, **named: object) -> None:
        raise error

    copy = shutil.copytree(folder, tmp_path / "run")
    for path in (copy / "evaluation" / "figures").glob("*"):
        if path.stem in ("accuracy", "kinds"):
            path.unlink()
    monkeypatch.setattr(pictures, "data_uri", fails)
    monkeypatch.setattr(plots, "_kinds", fails)
    found = Page(write_report(copy).read_text(encoding="utf-8"))
    assert len(found.of("article", "case")) == 12 and not found.of("img")
    figures = {path.stem for path in (copy / "evaluation" / "figures").iterdir()}
    assert "accuracy" in figures and "kinds" not in figures
    assert f"page: a picture is left out: {type(error).__name__}" in capsys.readouterr().err


def test_no_name_of_a_file_stands_on_the_page(folder: Path, tmp_path: Path) -> None:
    """A table or a scan may be named after its patient: what was left out is told by row and id."""
    copy = shutil.copytree(folder, tmp_path / "run")
    row = json.loads((copy / "quarantine.jsonl").read_text())
    (copy / "quarantine.jsonl").write_text(json.dumps(row | {"file": "scans/Jane_Roe_1961.csv"}) + "\n")
    text = write_report(copy).read_text(encoding="utf-8")
    assert "Jane" not in text and "row 3" in text
    assert not [name for name in ("a.png", "wide.png", "tall.png", "m.png", "x.png") if f"{name}" in Page(text).text]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_terminal_s_table_is_whole_at_any_width(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from clinalign.pages import print_table

    run = make_run(tmp_path)
    monkeypatch.setattr("clinalign.pages.results.LOG_WIDTH", width)
    print_table(run)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= width and "\u2026" not in said
    assert said.count("all") == said.count("against base") == 1 and said.count("base  ") == said.count("system")


def test_columns_are_dealt_into_tables_that_fit() -> None:
    """Needed: 3 + 3, 5 + 3 and 8 + 3 characters (the longest word or cell, and the gap)."""
    columns = [("all", ["1.0"]), ("prior right", ["64.0"]), ("x", ["12345678"])]
    parts = [[head for head, _ in part] for part in fitting(columns, 14)]
    assert parts == [["all", "prior right"], ["x"]]
    assert [[head for head, _ in part] for part in fitting(columns, 5)] == [["all"], ["prior right"], ["x"]]


def test_a_small_drift_is_more_than_nothing() -> None:
    found = {"estimate": 0.00132, "low": 0.0009, "high": 0.0201}
    assert cell(found, "nats") == {"value": "0.0013", "interval": "0.0009 to 0.02"}
    assert cell(found, "words")["value"] == "0.0" and cell({**found, "estimate": -0.5}, "%")["value"] == "−50.0"
