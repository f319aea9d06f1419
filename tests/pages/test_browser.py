"""The page in headless Chromium: no errors, nothing from outside, toggles, filters, keys, decisions, phone, print."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clinalign.pages import write_report
from clinalign.pairs.decisions import read_decisions

sys.path.insert(0, str(Path(__file__).parent))
from folders import SCRIPT, examples, make_run, pairs

pytestmark = pytest.mark.slow
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]


def executable() -> str:
    """A Chromium of the system's, or the one that CHROMIUM names."""
    found = os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)
    if not found:
        pytest.fail("no Chromium found: apt-get install chromium, or set CHROMIUM to its path")
    return found


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(make_run(tmp_path_factory.mktemp("browser") / "run")).as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("playwright is missing: pip install 'clinalign[test]'")
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=executable(), args=FLAGS)
        yield opened
        opened.close()


class Watched:
    """A page that notes every console message, error and request beyond its own file."""

    def __init__(self, browser: Any, url: str, *, script: str = "", **context: Any) -> None:
        self.noise: list[str] = []
        self.context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}} | context)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.noise.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.noise.append(f"error: {error}"))
        self.page.on("request", lambda r: None if r.url.startswith(OWN) else self.noise.append(f"request: {r.url}"))
        self.page.on("dialog", lambda dialog: dialog.accept())
        if script:
            self.page.add_init_script(script)
        self.page.goto(url)

    def shown(self, selector: str) -> int:
        """How many elements are visible."""
        return int(self.page.locator(f"{selector}:visible").count())


OWN = ("file:", "data:", "blob:")


@pytest.fixture
def view(browser: Any, url: str) -> Iterator[Watched]:
    watched = Watched(browser, url)
    yield watched
    watched.context.close()
    assert watched.noise == []


def test_a_script_in_an_answer_is_text(view: Watched) -> None:
    card = view.page.locator(".case", has_text="Question 3").first
    assert SCRIPT in card.inner_text()
    assert view.page.evaluate("typeof window.hacked") == "undefined"
    assert view.page.locator("article script, article img[onerror]").count() == 0
    assert view.page.locator("h1").inner_text().startswith("Run <b>&")


def test_the_switches_show_and_hide(view: Watched) -> None:
    for name, selector in (
        ("outlines", ".case .frame svg"),
        ("corrupted-images", ".case .corrupted"),
        ("heats", ".case .heat"),
        ("rewards", ".case .reward"),
    ):
        box = view.page.locator(f"[data-shows={name}]")
        on = box.is_checked()
        assert on == (name in ("outlines", "corrupted-images")) and (view.shown(selector) > 0) == on
        box.click()
        assert (view.shown(selector) > 0) != on
    assert view.shown(".case:has(.reward) .plain") == 0
    copies = view.page.evaluate("[...document.querySelectorAll('img[data-copy]')].every(i => i.naturalWidth > 1)")
    assert copies


def test_filters_and_search_work_together(view: Watched) -> None:
    total = view.page.locator(".case").count()
    view.page.locator("button[data-value=fixed]").click()
    assert view.shown(".case") == view.page.locator(".case[data-kind=fixed]").count() == 4
    assert view.page.locator(".count").first.inner_text() == f"4 of {total} shown here"
    view.page.locator("#examples select[data-field=qkind]").select_option("side")
    sides = view.page.locator(".case[data-kind=fixed][data-qkind=side]").count()
    assert view.shown(".case") == sides
    view.page.locator("#examples select[data-field=qkind]").select_option("")
    view.page.locator("#examples [type=search]").fill("LESION 6 side")
    assert view.shown(".case") == 1 and "Question 6" in view.page.locator(".case:visible").inner_text()
    view.page.locator("#examples [type=search]").fill("nothing of the kind")
    assert view.shown(".case") == 0 and view.shown("#examples .empty") == 1
    view.page.locator("#examples [type=search]").fill("")
    view.page.locator(".gallery button[data-value='']").first.click()
    assert view.shown(".case") == total
    view.page.locator("select[data-field=flips]").select_option("counterfactual/firempo")
    assert 0 < view.shown(".case") < total
    view.page.locator("select[data-field=flips]").select_option("")
    view.page.locator("#examples select[data-field=modality]").select_option("MR <b>")
    assert 0 < view.shown(".case") < total


def test_keys(view: Watched) -> None:
    def focused() -> int:
        where = "[...document.querySelectorAll('.card')].filter(c => !c.hidden).indexOf(document.activeElement)"
        return int(view.page.evaluate(where))

    press = view.page.keyboard.press
    for key, at in (("j", 0), ("j", 1), ("ArrowRight", 2), ("k", 1), ("ArrowLeft", 0), ("k", 0)):
        press(key)
        assert focused() == at, key
    press("t")
    assert view.shown(".case .corrupted") == 0
    press("/")
    assert view.page.evaluate("document.activeElement.type") == "search"
    view.page.keyboard.type("tjk?")
    assert view.page.locator("#examples [type=search]").input_value() == "tjk?" and view.shown(".case .corrupted") == 0
    press("Escape")
    press("?")
    assert view.page.locator("#keys").is_visible()
    press("Escape")
    assert not view.page.locator("#keys").is_visible()


def test_a_picture_can_be_enlarged(view: Watched) -> None:
    small = view.page.locator(".case .main .frame").first
    small.click()
    large = view.page.locator("#zoom .frame")
    assert large.bounding_box()["width"] > 3 * small.bounding_box()["width"] and view.shown("#zoom svg") == 1
    view.page.keyboard.press("j")
    view.page.keyboard.press("Escape")
    assert not large.is_visible()
    view.page.locator(".case").first.focus()
    view.page.keyboard.press("z")
    large.click()
    assert not large.is_visible()


def test_no_picture_is_stretched(view: Watched) -> None:
    """Every frame has its own image's proportions, in the card and enlarged; a tall one stays on the screen."""
    bent = """[...document.querySelectorAll('.main .frame, #zoom .frame')].filter(f => {
        const image = f.querySelector('img'), box = f.getBoundingClientRect();
        return Math.abs(box.width / box.height * image.naturalHeight / image.naturalWidth - 1) > 0.03;
    }).map(f => f.outerHTML.slice(0, 80))"""
    assert view.page.evaluate(bent) == []
    view.page.locator(".case", has_text="Question 4").locator(".main .frame").last.click()
    assert view.page.evaluate(bent) == [] and view.page.locator("#zoom .frame").bounding_box()["height"] < 900


def test_light_and_dark(browser: Any, url: str) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    seen = {}
    for scheme in ("light", "dark"):
        watched = Watched(browser, url, color_scheme=scheme)
        seen[scheme] = watched.page.evaluate(ground)
        watched.page.locator("#theme").click()
        seen[f"{scheme}, turned"] = watched.page.evaluate(ground)
        watched.page.reload()
        assert watched.page.evaluate(ground) == seen[f"{scheme}, turned"]
        assert watched.noise == []
        watched.context.close()
    assert seen["light"] == seen["dark, turned"] != seen["dark"] == seen["light, turned"]


def download(watched: Watched, path: Path) -> list[dict[str, Any]]:
    with watched.page.expect_download() as caught:
        watched.page.locator("#download").click()
    assert caught.value.suggested_filename == "decisions.jsonl"
    caught.value.save_as(path)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def decide(watched: Watched) -> None:
    """Accepts the first edit, rejects the second with a reason and corrects the third."""
    cards = watched.page.locator(".card.edit")
    cards.nth(0).locator("[data-decide=accept]").click()
    cards.nth(1).locator("[data-decide=reject]").click()
    cards.nth(1).locator("input").fill('the "side" <b>')
    cards.nth(2).locator("[data-decide=correct]").click()
    cards.nth(2).locator("textarea").fill("The lesion lies in the left lobe.")


def test_decisions_are_downloaded_kept_and_readable(view: Watched, tmp_path: Path) -> None:
    assert view.page.locator("#download").is_disabled()
    decide(view)
    rows = download(view, tmp_path / "d.jsonl")
    made = pairs(examples())
    expected = [
        ("accept", "", ""),
        ("reject", 'the "side" <b>', ""),
        ("correct", "", "The lesion lies in the left lobe."),
    ]
    assert [(r["decision"], r["reason"], r["text"]) for r in rows] == expected
    assert [(r["pair"], r["chosen"], r["rejected"]) for r in rows] == [(p.id, p.chosen, p.rejected) for p in made[:3]]
    assert [d.pair for d in read_decisions(tmp_path / "d.jsonl")] == [p.id for p in made[:3]]
    view.page.reload()
    assert download(view, tmp_path / "again.jsonl") == rows
    view.page.locator("#edits button[data-value=reject]").click()
    assert view.shown(".card.edit") == 1
    view.page.locator("#edits button[data-value='']").click()
    view.page.locator(".card.edit").nth(0).locator("[data-decide=accept]").click()
    assert len(download(view, tmp_path / "less.jsonl")) == 2
    view.page.locator("#forget").click()
    assert view.page.locator("#download").is_disabled()


def test_a_correction_that_changes_nothing_is_no_decision(view: Watched) -> None:
    card = view.page.locator(".card.edit").nth(0)
    card.focus()
    view.page.keyboard.press("c")
    assert card.locator("textarea").input_value() == pairs(examples())[0].rejected
    assert view.page.locator("#download").is_disabled() and card.locator(".words .note").is_visible()
    card.focus()
    view.page.keyboard.press("x")
    assert card.get_attribute("data-decision") == "reject"


def test_without_storage_decisions_can_still_be_downloaded(browser: Any, url: str, tmp_path: Path) -> None:
    refuse = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('refused'); } });"
    watched = Watched(browser, url, script=refuse)
    decide(watched)
    assert watched.page.locator("#kept").is_visible() and len(download(watched, tmp_path / "d.jsonl")) == 3
    assert watched.noise == []
    watched.context.close()


@pytest.mark.parametrize("width", [1400, 768, 390])
def test_nothing_is_wider_than_the_window(width: int, browser: Any, url: str, tmp_path: Path) -> None:
    watched = Watched(browser, url, viewport={"width": width, "height": 844})
    for box in ("heats", "rewards"):
        watched.page.locator(f"[data-shows={box}]").click()
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
    watched.page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000
    small = """[...document.querySelectorAll('button, select, input')].filter(e => e.offsetParent
        && e.getBoundingClientRect().height < 24 && e.type !== 'checkbox').map(e => e.outerHTML)"""
    assert watched.page.evaluate(small) == []
    assert watched.noise == []
    watched.context.close()


def test_print_leaves_the_tools_out(view: Watched) -> None:
    view.page.emulate_media(media="print")
    assert view.shown(".tools") == 0 and view.shown(".bar") == 0 and view.shown(".case") > 0
    assert view.page.pdf()[:4] == b"%PDF"
