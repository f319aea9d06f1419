"""The checker: is every sentence of an answer carried by a fact of the trace?

A sentence is read into claims (findings, by the language package) and measures (a name and its value). It is supported
where every claim and every detail of it, which eye, which quadrants, how many, how severe, agrees with facts of the
same finding; refuted where a fact of the same finding says otherwise; unsupported in every other case, also where it
cannot be read or says a word more than its facts do. Nothing is assumed to be true for being likely."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clinalign.agent.evidence import Found, Status, check_sentence


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of an answer, its characters in it, its status, the trace rows that carry it, and why not."""

    text: str
    start: int
    end: int
    status: Status
    evidence: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`followed`: the tools listed are those run; `complete`: there is an answer that was offered; `accepted`: both,
    and no sentence refuted, nor all of them unsupported while there are facts. `refuted`: letters that facts rule
    out."""

    accepted: bool
    followed: bool
    complete: bool
    sentences: tuple[Sentence, ...]
    refuted: tuple[str, ...] = ()
    feedback: str = ""


def check_answer(
    text: str,
    letter: str | None,
    statements: Mapping[str, str],
    facts: Found,
    *,
    planned: Iterable[str],
    run: Iterable[str],
    listed: Iterable[str],
) -> Verdict:
    """Checks an answer: its text, its letter among those of `statements` (letter -> what the option states; empty: no
    options), the tools that were planned, those that ran, and those that the answer lists."""
    sentences = tuple(check_text(text, facts))
    ran = set(run)
    lists = {"planned": set(planned), "listed": set(listed)}
    problems = [
        f"tools {name} but not run: {', '.join(sorted(tools - ran))}" for name, tools in lists.items() if tools - ran
    ]
    problems += [
        f"tools run but not {name}: {', '.join(sorted(ran - tools))}" for name, tools in lists.items() if ran - tools
    ]
    followed = not problems
    complete = letter in statements if statements else bool(text.strip())
    if not complete:
        problems.append("no answer among the options" if statements else "no answer")
    refuted = tuple(name for name, said in statements.items() if _refuted(said, facts))
    if letter in refuted:
        problems.append(f"the evidence contradicts option {letter}")
    bad = [s for s in sentences if s.status == "refuted"]
    problems += [f"the evidence contradicts: {s.text} ({s.reason})" for s in bad]
    carried = not facts or any(s.status == "supported" for s in sentences)
    if complete and not bad and letter not in refuted and not carried:
        problems.append("nothing in the answer is supported by the evidence")
    return Verdict(not problems, followed, complete, sentences, refuted, "; ".join(problems))


def check_text(text: str, facts: Found) -> list[Sentence]:
    """Every sentence of a text with its status and evidence."""
    found = []
    for match in re.finditer(r"\S.*?(?:[.!?](?=\s|$)|\n|$)", text, re.S):
        sentence = match[0].strip()
        if sentence.strip(".!? "):
            judged = check_sentence(sentence, facts)
            evidence = tuple(sorted(judged.evidence))
            found.append(
                Sentence(sentence, match.start(), match.start() + len(sentence), judged.status, evidence, judged.reason)
            )
    return found


def _refuted(statement: str, facts: Found) -> bool:
    return any(s.status == "refuted" for s in check_text(statement, facts))
