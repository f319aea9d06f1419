"""Is a thing within the reach of a negation? By the words of a clause, in the order in which they stand.

What is denied of *the* thing is a property of it ("the dog is not moving", "no vessel crosses the mass"); what is
denied of *a* thing, or of the thing without an article, is that it is there ("none of them has brought an umbrella",
"nothing that I would call a mass"). A thing that is itself the subject is denied by verbs of being there alone ("a
bottle was not painted").
"""

from __future__ import annotations

import re

from clinalign.evaluation.suites.denials import MARK

_NEVER = frozenset("not never cannot hardly scarcely barely".split())
_NONE = frozenset(
    "no none nothing nobody nowhere neither nor without zero lack lacks lacking absence absent free devoid fails fail "
    "failed unable nil minus never excludes excluded sans".split()
)
_ARTICLES = frozenset("a an any single actual true real such".split())
_DEFINITE = frozenset("the this that these those its his her their your my our".split())
_ENDS = frozenset(
    "but except besides apart aside than because although though since while whereas if whether unless until however "
    "yet which ; : ( ) due so therefore hence".split()
)
_WITHIN = frozenset(
    "within around near inside beside along behind under beneath above below between through across over at on by "
    "into from adjacent against touching surrounding".split()
)
_NEEDLESS = frozenset("only just merely solely simply far long quite yet exclude rule overlook miss doubt deny".split())
_CHANGE = frozenset("change doubt increase decrease difference question worsening improvement growth".split())
_LEFT = frozenset("trace sign signs evidence remains remnant remnants left residue remain residual hint".split())
_SKIPPED = frozenset(
    "be been being to have has had do does did can could will would may might really actually clearly even also "
    "something anything i we you currently now definitely ever anywhere fact itself is are was were a an the "
    "any ,".split()
)
_IMAGE = frozenset(
    "it there here this image picture photo photograph scene shot frame view film scan x-ray radiograph".split()
)
_THERE = tuple(
    "see seen show appear figur featur exist present visib visual identif detect depict includ found find observ "
    "eviden apparent demonstrat noted notic appreciat recogni part among paint draw photograph implant captur pictur "
    "insert diagnos discern perceiv spot encounter contain occur there here anywhere around made make belong sight "
    "involved locat arriv brought come count one".split()
)
_BREAKS = frozenset("which who that but and or ; ( ) because since is are was were has have had".split())
_TOKEN = re.compile(r"[\w'-]+|[,;:()]")


def denies(clause: str) -> bool:
    """Whether a clause denies that the thing, `MARK` in it, is there."""
    words = _words(clause)
    return any(_reached(words, at) or _said_of(words, at) for at, word in enumerate(words) if word == MARK)


def _words(clause: str) -> list[str]:
    """The words and stops of a clause, "n't" as a word of its own."""
    out: list[str] = []
    for word in _TOKEN.findall(clause):
        if word.startswith(MARK):
            out.append(MARK)
        elif word.endswith("n't"):
            out += [word[:-3], "not"]
        else:
            out.append(word)
    return out


def _article(words: list[str], at: int) -> tuple[str, int]:
    """The article of the noun at `at` ("" without one) and where its phrase begins."""
    for back in range(at - 1, max(at - 6, -1), -1):
        word = words[back]
        if word in _ARTICLES or word in _DEFINITE or word == "no":
            return word, back
        if word in _NEVER or word in _NONE or word in _WITHIN or word in ("of", "in", "with", "as", "like", "for", ","):
            return "", back + 1
    return "", max(at - 5, 0)


def _reached(words: list[str], at: int) -> bool:
    """Whether a negation before the thing reaches it."""
    article, begin = _article(words, at)
    definite = article in _DEFINITE
    before = words[begin - 1] if begin else ""
    for n in range(at - 1, -1, -1):
        word = words[n]
        if word in _ENDS:
            return False
        if (word not in _NEVER and word not in _NONE) or (n and words[n - 1] == "or"):
            continue
        between = words[n + 1 : at]
        if n == 0 and word == "no" and between[:1] == [","]:
            return False
        if between and between[0] in _NEEDLESS | _CHANGE or (n == 0 and word == "without" and "," in between):
            return False
        if definite or before in _WITHIN:
            return word in _NONE and not before == "within" and any(w in _LEFT for w in words[n : at + 3])
        if word in _NEVER:
            bare = n and not article and len(between) <= 2 and words[n - 1] in ("is", "are", "was", "were")
            return article in _ARTICLES or bool(bare)
        return not (word == "free" and between[:1] != ["of"] and between[:1] != ["from"])
    return False


def _said_of(words: list[str], at: int) -> bool:
    """Whether the thing is the subject of a verb of being there that is denied."""
    definite = _article(words, at)[0] in _DEFINITE
    for n in range(at + 1, min(at + 8, len(words))):
        word = words[n]
        if word in ("not", "never", "nowhere") and words[n - 1] != "or":
            after = [w for w in words[n + 1 :] if w not in _SKIPPED]
            if word == "nowhere":
                return True
            if not after:
                return True
            inside = after[0] in ("in", "on") and bool(_IMAGE & set(after[1:4]))
            if inside or (after[0].startswith(_THERE) and not (definite and after[0] in ("made", "make", "come"))):
                return True
        if word in _BREAKS and not (n + 1 < len(words) and words[n + 1] in ("not", "never", "nowhere", "also", "been")):
            return False
    return False
