"""Reference texts: statements out of a local folder, found by BM25.

Documents are data. A sentence is admitted only where it states something: it names a known finding, organ or measure
and speaks to nobody. Whatever addresses a reader, gives an order, or speaks of prompts, answers, letters or tools is
withheld before anything is indexed, so that it can neither reach a model nor move what is found; it stays in the
trace as a quote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinalign.errors import UsageError
from clinalign.language.parse import parse
from clinalign.storage import read_text, user_path

SENTENCES = 4
"""Sentences of a passage."""
LONGEST = 400
"""Characters of a sentence; a longer one is no statement."""
_WORD = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
_MEASURES = re.compile(
    r"\b(?:ratio|grade|pressure|iop|quadrants?|optic|retin\w+|macula\w*|fovea\w*|fundus|glaucoma\w*)\b", re.I
)
_ADDRESSED = re.compile(
    r"\b(?:you|your|yours|yourself|i|me|my|we|us|our|please|must|should|shall|ought|let|do not|don['’]t|never|"
    r"always|ensure|make sure|need to|has to|have to)\b",
    re.I,
)
_CONVERSATION = re.compile(
    r"\b(?:ignor\w*|disregard\w*|forget\w*|overrid\w*|overrul\w*|instruct\w*|prompts?|"
    r"system(?=\s*[:>\]]|\s+(?:prompt|message))|assistants?|"
    r"users?|agents?|models?|tools?|"
    r"functions?|calls?|calling|"
    r"respon\w*|repl(?:y|ies|ied)|answer\w*|outputs?|options?|letters?|choices?|cho(?:ose|sen)|select\w*|picks?|"
    r"says?|tell|write|print|return\w*|repeat|report as|stat(?:e|ing)|claim\w*|conclude\w*|correct|task|"
    r"question\w*|rule\w*|commands?|"
    r"polic(?:y|ies)|developer|admin\w*|checker|evaluator|verdict|trace|accepts?|approv\w*|skip\w*|stop\w*|"
    r"execut\w*|run|instead|new instructions?|(?:the|any|all) (?:previous|above|following)|json|http\w*|www|api)\b"
    r"|[<>{}\[\]|`#*_=\\]|://",
    re.I,
)
_IMPERATIVE = re.compile(
    r"^(?:and |then |now |also |first |next )?(?:set|mark|treat|consider|assume|give|go|put|take|change|add|remove|"
    r"delete|switch|follow|obey|act|pretend|behave|describe|list|show|note|remember|regard|classify|grade|label|call|name|rate|"
    r"count|measure|segment|look|check|see|read|keep|leave|drop|open|send|turn|replace|confirm|deny|reject|assign|record|"
    r"enter|submit|finish|proceed|continue|respond|do|be|have|get)\b",
    re.I,
)
_LETTER = re.compile(r"(?<![\w'’-])(?:[B-H]|A(?=\s*(?:[.:;,)]|$)))(?![\w'’-])")


@dataclass(frozen=True, slots=True)
class Passage:
    """Admitted sentences of a document, and how well they fit a question."""

    source: str
    text: str
    score: float = 0.0


class Library:
    """The documents of a folder. Raises `UsageError` for a folder without any and where bm25s is not installed."""

    def __init__(self, folder: str | Path) -> None:
        base = user_path(str(folder))
        files = sorted(p for p in base.rglob("*") if p.suffix.lower() in (".txt", ".md") and p.is_file())
        if not files:
            raise UsageError(f"agent.documents: {folder}: no .txt or .md file in it; give a folder of reference texts")
        self.withheld: list[tuple[str, str]] = []
        self.passages: list[Passage] = []
        for file in files:
            name = file.relative_to(base).as_posix()
            kept, away = admitted(read_text(file))
            self.withheld += [(name, sentence) for sentence in away]
            for at in range(0, len(kept), SENTENCES):
                self.passages.append(Passage(name, " ".join(kept[at : at + SENTENCES])))
        self._index = _index([_words(passage.text) for passage in self.passages]) if self.passages else None

    def search(self, question: str, count: int) -> list[Passage]:
        """The passages that fit best, best first; those that share no word with the question are left out."""
        words = [word for word in _words(question) if self._index is not None and word in self._index.vocab_dict]
        if not words or self._index is None:
            return []
        found = self._index.retrieve([words], k=min(count, len(self.passages)), show_progress=False)
        ranked = zip(found.documents[0].tolist(), found.scores[0].tolist())
        return [
            Passage(self.passages[i].source, self.passages[i].text, round(score, 4)) for i, score in ranked if score > 0
        ]


def admitted(text: str) -> tuple[list[str], list[str]]:
    """The sentences of a text that state something, and those that are withheld."""
    kept: list[str] = []
    away: list[str] = []
    for sentence in re.split(r"(?<=[.!?])\s+|\n+", text):
        if sentence := " ".join(sentence.split()):
            (kept if states(sentence) else away).append(sentence)
    return kept, away


def states(sentence: str) -> bool:
    """Whether a sentence is a statement about findings, organs or measures, and nothing else."""
    if len(sentence) > LONGEST or not sentence.isprintable() or not sentence.endswith("."):
        return False
    clauses = re.split(r"[,;:]\s+|\s[-–—]\s|\b(?:and|then|but)\s+", sentence)
    if any(_IMPERATIVE.match(clause.strip(" \"'“”‘’(")) for clause in clauses):
        return False
    if _ADDRESSED.search(sentence) or _CONVERSATION.search(sentence) or _LETTER.search(sentence):
        return False
    return bool(_MEASURES.search(sentence)) or any(m.kind in ("finding", "organ") for m in parse(sentence).mentions)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _index(corpus: Sequence[list[str]]) -> Any:
    try:
        import bm25s
    except ImportError as error:
        raise UsageError("agent.documents needs bm25s; pip install 'clinalign[agent]'") from error
    index = bm25s.BM25()
    index.index(list(corpus), show_progress=False)
    return index
