"""Small rewrites that keep a sentence grammatical: a claim denied or affirmed.

Every function returns replacements (start, end, new text) into the text, or None where it knows no clean way.
"""

from __future__ import annotations

import re

from clinalign.language.claims import Claim
from clinalign.language.graph import CONCEPTS
from clinalign.language.lexicon import singular
from clinalign.language.parse import Mention, Parse, label_value
from clinalign.language.substitution import TextEdit, article, cased

_BE = {"is", "are", "was", "were", "can", "cannot"}
_STOPS_PHRASE = frozenset(
    ", . ; : and or of in on at with without within is are was were to from by shows show showing contains contain "
    "which that there has have reveals demonstrates be can no not the a an but".split()
)
_LEADS_TO = ("consistent", "compatible", "suggestive", "keeping", "suspicious", "indicative")


def phrase_start(parsed: Parse, m: Mention) -> int:
    """The word index where the finding's noun phrase begins, its determiner left out."""
    first, floor = m.first, parsed.sentence(m.first)[0]
    while first > floor and m.first - first < 6 and parsed.words[first - 1] not in _STOPS_PHRASE:
        first -= 1
    return first


_NEUTRAL = frozenset("new acute chronic old recent known stable unchanged subacute likely possible definite".split())


def plain(parsed: Parse, m: Mention) -> bool:
    """Whether nothing but sides, sizes and the like stands before a finding, so that another could take its place: no
    "comminuted dislocation"."""
    first = phrase_start(parsed, m)
    said = {i for o in parsed.mentions if o.kind not in ("finding", "organ") for i in range(o.first, o.last)}
    return all(i in said or parsed.words[i] in _NEUTRAL or parsed.words[i] == "-" for i in range(first, m.first))


def negate(parsed: Parse, claim: Claim) -> list[TextEdit] | None:
    """Turns a claim that something is present into its denial."""
    m, words = claim.mention, parsed.words
    if claim.implied:
        return _replace_words(parsed, m, _normal(parsed, m))
    value = label_value(parsed, m)
    if value is not None:
        return [_replace_range(parsed, value, "absent")]
    if _adjective(parsed, m):
        return [_insert(parsed, m.first, "not")] if set(words[max(0, m.first - 6) : m.first]) & _BE else None
    first = phrase_start(parsed, m)
    before = words[first - 1] if first > parsed.sentence(m.first)[0] else ""
    led = _led(parsed, first - 1 if before in ("a", "an", "the") else first)
    if led is not None:
        return led if led else _state(parsed, m)
    if before in ("a", "an", "the", "some"):
        return [_replace_word(parsed, first - 1, "no")]
    stated = _state(parsed, m) if first == parsed.sentence(m.first)[0] or before == "" else None
    if stated:
        return stated
    if first < m.first and parsed.words[first] in ("small", "large", "mild", "moderate", "severe", "definite", "new"):
        return [_replace_word(parsed, first, "no")]
    return [_insert(parsed, first, "no")]


def _adjective(parsed: Parse, m: Mention) -> bool:
    """Whether a finding is said by an adjective on its own: "is calcified"."""
    if m.last - m.first > 1 or not parsed.words[m.first].endswith(("ed", "ic", "ous")):
        return False
    return m.last >= len(parsed.words) or not parsed.words[m.last].isalpha() or parsed.words[m.last] in _STOPS_PHRASE


def _led(parsed: Parse, first: int) -> list[TextEdit] | None:
    """ "evidence of a nodule", "consistent with a nodule": an empty list where the verb has to be turned instead."""
    words = parsed.words
    if first >= 2 and words[first - 1] in ("of", "for") and words[first - 2] in ("evidence", "signs", "sign"):
        at = first - 2
        if at and words[at - 1] in ("clear", "definite", "strong", "some"):
            return [_replace_word(parsed, at - 1, "no")]
        return [_insert(parsed, at, "no")]
    if first >= 2 and words[first - 1] in ("with", "of", "for") and words[first - 2] in _LEADS_TO:
        return []
    if first >= 2 and words[first - 1] == "of" and words[first - 2] == "presence":
        return [_replace_word(parsed, first - 2, "absence")]
    return None


def _state(parsed: Parse, m: Mention) -> list[TextEdit] | None:
    """Turns the verb after the finding: "is present" to "is absent", "is seen" to "is not seen"."""
    words, last = parsed.words, parsed.sentence(m.first)[1]
    for i in range(m.last, min(last - 1, m.last + 8)):
        if words[i] in (",", ";", "but", "which", "and"):
            return None
        if words[i] in _BE and words[i + 1] == "present":
            return [_replace_word(parsed, i + 1, "absent")]
        if words[i] in ("is", "are", "was", "were", "can"):
            return [_insert(parsed, i + 1, "not")]
    return None


def affirm(
    parsed: Parse, claim: Claim, findings: list[Claim], *, hint: str | None = None, extra: str = ""
) -> list[TextEdit] | None:
    """Turns a denial into the claim that the thing is present.

    `findings`: the claims of the same text, so that one of a denied list can be turned alone. `hint`: "a" or "an" when
    the question used an article with the finding, "" when not. `extra`: words such as "small left" put before it.
    """
    if claim.implied:
        return _replace_words(parsed, claim.mention, _abnormal(parsed, claim))
    if claim.cue is None:
        return None
    value = label_value(parsed, claim.mention)
    if value is not None:
        return [_replace_range(parsed, value, "present")]
    cue = parsed.text[claim.cue[0] : claim.cue[1]].lower()
    listed = [c for c in findings if c.cue == claim.cue and not c.implied]
    if len(listed) > 1:
        return _affirm_one(parsed, claim, listed, hint, extra) if cue == "no" else None
    first = next(i for i, span in enumerate(parsed.spans) if span[0] == claim.cue[0])
    return _turn_cue(parsed, claim, cue, first, hint, extra)


def _turn_cue(parsed: Parse, claim: Claim, cue: str, first: int, hint: str | None, extra: str) -> list[TextEdit] | None:
    words, m = parsed.words, claim.mention
    if cue.startswith("no ") and cue.split()[-1] in ("of", "for"):
        return [_delete(parsed, first)] + _extra(parsed, m, extra)
    if cue == "no":
        return _turn_no(parsed, first, m, hint, extra) + _consequences(parsed, m)
    if cue in ("not", "never") or cue.startswith(("not ", "never ")):
        return [_delete(parsed, first)]
    if cue.startswith("cannot") or cue.startswith("can't"):
        return [_replace_word(parsed, first, "can")]
    if cue.startswith(("isn't", "aren't", "wasn't", "weren't")):
        return [_replace_word(parsed, first, words[first][:-3])]
    if cue.startswith("could not") or cue.startswith("can not"):
        return [_delete(parsed, first + 1)]
    simple = {
        "without": "with", "absent": "present", "negative for": "positive", "absence of": "presence",
        "no longer": "still", "lack of": "presence", "free of": "positive", "without evidence of": "with",
    }  # fmt: skip
    if cue in ("free of", "free from", "negative for"):
        end = claim.cue[1] if claim.cue else 0
        return [(parsed.spans[first][0], end, cased(cue, "positive for"))]
    if cue in ("has resolved", "have resolved"):
        return [_replace_word(parsed, first + 1, "persisted")]
    if cue in simple:
        change = [_replace_word(parsed, first, simple[cue])]
        needs = (
            cue == "without"
            and CONCEPTS[m.value].noun == "c"
            and first + 1 == m.first
            and singular(words[m.last - 1]) == words[m.last - 1]
        )
        return (
            change
            if not needs
            else [(parsed.spans[first][0], parsed.spans[first][1], f"with {article(words[m.first])}")]
        )
    return None


def _turn_no(parsed: Parse, first: int, m: Mention, hint: str | None, extra: str) -> list[TextEdit]:
    """ "no" before a noun phrase: an article for a countable finding, otherwise it goes."""
    following = parsed.words[first + 1]
    determiner = _determiner(parsed, m, extra.split()[0] if extra else following, hint)
    new = f"{determiner} {extra}".strip()
    return [_replace_word(parsed, first, new)] if new else [_delete(parsed, first)]


def _determiner(parsed: Parse, m: Mention, following: str, hint: str | None) -> str:
    noun = CONCEPTS[m.value].noun if m.value in CONCEPTS else "c"
    last = parsed.words[m.last - 1]
    if singular(last) != last or noun == "m" or (noun == "b" and not hint):
        return ""
    return article(following)


def _consequences(parsed: Parse, m: Mention) -> list[TextEdit]:
    """ "..., so no location can be given": what follows from the denial turns with it."""
    words, last = parsed.words, parsed.sentence(m.first)[1]
    if "so" not in words[m.last : last]:
        return []
    at = words.index("so", m.last)
    return [_replace_word(parsed, i, article(words[i + 1])) for i in range(at + 1, last - 1) if words[i] == "no"]


def _affirm_one(
    parsed: Parse, claim: Claim, listed: list[Claim], hint: str | None, extra: str
) -> list[TextEdit] | None:
    """One item of "no A, B or C": "a A, no B or C", "no A, a B, no C", "no A or B but a C"."""
    n = next((i for i, c in enumerate(listed) if c.start == claim.start), None)
    cue_word = next(i for i, span in enumerate(parsed.spans) if claim.cue is not None and span[0] == claim.cue[0])
    if n is None:
        return None
    m = claim.mention
    start = cue_word + 1 if n == 0 else phrase_start(parsed, m)
    lead = _determiner(parsed, m, extra.split()[0] if extra else parsed.words[start], hint)
    lead = f"{lead} {extra}".strip()
    changes: list[TextEdit] = []
    if n == 0:
        changes.append(_replace_word(parsed, cue_word, lead) if lead else _delete(parsed, cue_word))
    elif n == len(listed) - 1:
        changes.append(_separator(parsed, listed[n - 1].end, parsed.spans[start][0], f" but {lead} "))
    elif lead:
        changes.append(_separator(parsed, listed[n - 1].end, parsed.spans[start][0], f", {lead} "))
    else:
        changes.append(_separator(parsed, listed[n - 1].end, parsed.spans[start][0], " but "))
    if n < len(listed) - 1:
        follow = phrase_start(parsed, listed[n + 1].mention)
        changes.append(_separator(parsed, claim.end, parsed.spans[follow][0], ", no "))
    return changes


def name_instead(parsed: Parse, claim: Claim, finding: str) -> list[TextEdit] | None:
    """ "no abnormality" to "a nodule": a finding named where all were denied."""
    if claim.cue is None or parsed.text[claim.cue[0] : claim.cue[1]].lower() != "no":
        return None
    if claim.cue[1] + 1 != parsed.spans[phrase_start(parsed, claim.mention)][0]:
        return None
    noun = CONCEPTS[finding].noun if finding in CONCEPTS else "c"
    named = finding if noun == "m" else f"{article(finding)} {finding}"
    return [(claim.cue[0], claim.end, cased(parsed.text[claim.cue[0] : claim.cue[1]], named))]


def _separator(parsed: Parse, start: int, end: int, new: str) -> TextEdit:
    return start, end, re.sub(r"  +", " ", new)


def _extra(parsed: Parse, m: Mention, extra: str) -> list[TextEdit]:
    return [_insert(parsed, phrase_start(parsed, m), extra)] if extra else []


def _abnormal(parsed: Parse, claim: Claim) -> str:
    """The opposite of a "normal", in as many words: "within normal limits" to "above normal limits"."""
    said = parsed.text[claim.mention.start : claim.mention.end].lower()
    if claim.finding not in CONCEPTS or "enlarged" not in CONCEPTS[claim.finding].states:
        return "abnormal"
    opposite = {
        "within normal limits": "above normal limits",
        "normal in size": "enlarged in size",
        "normal size": "enlarged size",
        "not enlarged": "clearly enlarged",
    }
    return opposite.get(said, "enlarged")


def _normal(parsed: Parse, m: Mention) -> str:
    """The opposite of an "enlarged", in as many words."""
    said = parsed.text[m.start : m.end].lower()
    opposite = {
        "above normal limits": "within normal limits",
        "enlarged in size": "normal in size",
        "increased in size": "normal in size",
        "enlarged size": "normal size",
        "clearly enlarged": "not enlarged",
    }
    return opposite.get(said, "normal")


def _replace_words(parsed: Parse, m: Mention, new: str) -> list[TextEdit]:
    return [(m.start, m.end, cased(parsed.text[m.start : m.end], new))]


def _replace_range(parsed: Parse, words: tuple[int, int], new: str) -> TextEdit:
    start, end = parsed.spans[words[0]][0], parsed.spans[words[1] - 1][1]
    return start, end, cased(parsed.text[start:end], new)


def _replace_word(parsed: Parse, word: int, new: str) -> TextEdit:
    start, end = parsed.spans[word]
    return start, end, cased(parsed.text[start:end], new)


def _insert(parsed: Parse, word: int, new: str) -> TextEdit:
    """A word before another one; at the start of a sentence the capital moves to it."""
    start, end = parsed.spans[word]
    old = parsed.text[start:end]
    if old[:1].isupper() and not old.isupper() and word == parsed.sentence(word)[0]:
        return start, end, f"{cased(old, new)} {old[:1].lower()}{old[1:]}"
    return start, start, f"{new} "


def _delete(parsed: Parse, word: int) -> TextEdit:
    """A word and the space after it; at the start of a sentence the next word takes the capital."""
    start, end = parsed.spans[word]
    following = parsed.spans[word + 1]
    if parsed.text[start].isupper():
        nxt = parsed.text[following[0] : following[1]]
        return start, following[1], nxt[:1].upper() + nxt[1:]
    return start, following[0], ""
