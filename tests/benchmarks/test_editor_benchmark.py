"""The editor benchmark on invented reports: its keys, its own counting, and what it says without a network."""

import json
import sys

import editor
import pytest

from clinalign.errors import UsageError

KEYS = {
    "edited_share", "words_changed_per_sentence_max", "length_diff_mean", "within_two_share", "edit_distance_mean",
    "synonym_only", "length_only_accuracy", "pairs_per_s", "corrupt_vs_png",
}  # fmt: skip
TEXTS = (
    "The heart is enlarged. There is a small left pleural effusion. No pneumothorax.",
    "The lungs are clear. Heart size is normal. No pleural effusion or pneumothorax is seen.",
    "There is a nodule in the right upper lobe. No acute bony abnormality.",
    "Stable postoperative view.",
)


def reports() -> list[dict]:
    tags = (["Cardiomegaly/mild", "Pleural Effusion/left"], ["normal"], ["Nodule/lung"], ["Technical Quality"])
    return [{"id": n, "findings": t, "impression": "", "tags": tags[n % 4]} for n, t in enumerate(TEXTS * 25)]


def run(monkeypatch: pytest.MonkeyPatch, out, *more: str) -> dict:
    small = ["--patients", "5", "--repeats", "4", "--pixels", "64", *more]
    monkeypatch.setattr(sys, "argv", ["editor.py", "--out", str(out), *small])
    editor.main()
    return json.loads(out.read_text())


def test_it_writes_the_keys_that_are_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(editor, "read_reports", lambda cache: reports())
    result = run(monkeypatch, tmp_path / "r.json")
    assert KEYS <= result.keys()
    assert result["edited_share"] == 0.75 and result["refused"] == {"cannot_tell: no_claims": 25}
    assert result["synonym_only"] == 0 and result["words_changed_per_sentence_max"] <= 3
    assert result["mesh"]["agreement"] == 1.0 and result["mesh"]["findings"] == 3
    assert result["mesh"]["tags_outside_the_lexicon"] == pytest.approx(1 / 5)
    assert not any(text in json.dumps(result) for text in TEXTS)


def test_without_the_archive_it_says_so_and_gives_the_rest(monkeypatch, tmp_path, capsys):
    def offline(package, cache):
        raise UsageError("torchxrayvision==1.5.7: cannot download")

    monkeypatch.setattr(editor, "fetch", offline)
    result = run(monkeypatch, tmp_path / "r.json", "--cache", str(tmp_path))
    assert result["report_archive"] == "not read: torchxrayvision==1.5.7: cannot download"
    assert "edited_share" not in result and result["pairs_per_s"] > 0
    assert "the numbers on reports are missing" in capsys.readouterr().err


def test_words_changed_are_counted_by_sentence():
    before = "The heart is large. No effusion is seen."
    assert editor.most_words_changed(before, before) == 0
    assert editor.most_words_changed(before, "The heart is small. No effusion is seen.") == 1
    assert editor.most_words_changed(before, "The heart is small now. An old effusion is seen.") == 2


def test_a_change_of_wording_alone_is_a_synonym():
    assert editor.meaning("A pulmonary nodule is seen.") == editor.meaning("A lung nodule is seen.")
    assert editor.meaning("A nodule is seen.") != editor.meaning("No nodule is seen.")


def test_tags_in_the_words_of_the_lexicon():
    assert editor.tagged(["Aorta, Thoracic/tortuous", "Pleural Effusion/left"]) == (
        {"tortuous aorta", "pleural effusion"},
        0,
    )
    assert editor.tagged(["Thoracic Vertebrae/degenerative/mild", "normal"]) == ({"degenerative change"}, 0)
    assert editor.tagged(["Nipple Shadow"]) == (set(), 1)
