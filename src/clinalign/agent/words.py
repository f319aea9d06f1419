"""The words that a sentence about an eye is read with: places, eyes, numbers, measures, and the frame around a
claim."""

from __future__ import annotations

import re

HALVES = ("superior", "inferior", "nasal", "temporal")
PLACE = {"upper": "superior", "lower": "inferior", "supero": "superior", "infero": "inferior"}
WHERE = re.compile(
    r"\b(?:(?P<corner>(?P<v>superior|inferior|upper|lower|supero|infero)[\s-]*(?P<h>nasal|temporal)(?:ly)?)"
    r"|(?P<back>(?P<h2>nasal|temporal)[\s-]+(?P<v2>superior|inferior|upper|lower)(?:ly)?(?!\s*[\s-](?:nasal|temporal)))"
    r"|(?P<half>superior|inferior|upper|lower|nasal|temporal)(?:ly)?)\b",
    re.I,
)
ALL = re.compile(
    r"\b(?:all|each|every|any)(?: of)?(?: the)?(?: four)? quadrants?\b|\bfour quadrants\b|\bthroughout\b", re.I
)
ONLY = re.compile(r"\b(?:only|exactly|solely|exclusively|confined|limited|restricted|alone)\b", re.I)
EYES = re.compile(
    r"\b(?:(?P<od>right|OD)|(?P<os>left|OS)|(?P<both>both|bilateral(?:ly)?|OU|either))\b(?:\s+eyes?)?", re.I
)
NUMBERS = dict(zip("zero one two three four five six seven eight nine ten eleven twelve".split(), range(13)))
NUMBERS |= {"single": 1, "solitary": 1}
NUMBER = re.compile(rf"(?<![\w.])\d+(?:\.\d+)?(?!\w)|\b(?:{'|'.join(NUMBERS)})\b", re.I)
MANY = re.compile(r"\b(?:multiple|several|many|numerous)\b", re.I)
JOIN = re.compile(r"[,;]|\b(?:and|but|while|whereas|with|as well as|or|nor)\b", re.I)
COMPARED = (
    (re.compile(r"\b(?:at least|no less than)\b|≥|>=", re.I), lambda fact, said: fact >= said),
    (re.compile(r"\b(?:at most|no more than)\b|≤|<=", re.I), lambda fact, said: fact <= said),
    (
        re.compile(r"\b(?:above|over|more than|greater than|larger than|higher than|exceed\w*)\b|>", re.I),
        lambda f, s: f > s,
    ),
    (re.compile(r"\b(?:below|under|less than|smaller than|lower than)\b|<", re.I), lambda fact, said: fact < said),
)
ALIASES = {
    "cup-to-disc ratio": r"(?:vertical )?(?:optic )?(?:cup[- ](?:to[- ])?dis[ck] ratio|c/d(?: ratio)?|cdr)",
    "cup-to-disc asymmetry": r"(?:cup[- ]to[- ]dis[ck] asymmetry|asymmetry)",
    "retinopathy grade": r"(?:(?:diabetic )?retinopathy grade|grade of (?:diabetic )?retinopathy|dr grade)",
    "glaucoma category": r"(?:glaucoma category|category of glaucoma)",
    "intraocular pressure": r"(?:intraocular pressure|iop)",
}
"""Measure -> how it is written; any other measure is written as it is named."""
FRAME = frozenset(
    """a an the this that these those there here is are was were be been being it its they their has have had and or
    but while whereas also both as well of in on at to for by with without within from into over across through no not
    none any some neither nor seen see visible present absent found identified noted detected observed evident shown
    shows show showing demonstrates demonstrate reveals reveal contains contain displays display lie lies located
    situated occur occurs appear appears involve involves involving affect affects affecting extend extends
    distributed spread eye eyes image photograph picture photo fundus retina retinal region regions quadrant quadrants
    half halves area areas side sector sectors only exactly solely exclusively confined limited restricted alone all
    each every four right left od os ou bilateral bilaterally upper lower superior inferior nasal temporal superiorly
    inferiorly nasally temporally measures measured measuring measure equals about value number count total above
    below more less than least most exceeds exceeding greater larger smaller higher lower under over multiple several
    many numerous single solitary group groups lesion lesions spot spots signs sign evidence mm hg mmhg consistent
    examined study examination can could which where throughout either do does vertical ratio grade graded category
    free clear fundoscopy i we""".split()
)
WORDS = re.compile(r"[A-Za-z]+")
EYE_ORGANS = {"eye", "retina", "fundus", "nose", "temporal lobe", "cup", "quadrant", "region"}
DEGREES = ("severity", "size")


def places(text: str) -> tuple[set[str], set[str]]:
    """The quadrants and the halves that a text names."""
    said, halves = set(), set()
    for m in WHERE.finditer(text):
        vertical, horizontal = m["v"] or m["v2"], m["h"] or m["h2"]
        if vertical:
            said.add(f"{PLACE.get(vertical.lower(), vertical.lower())} {horizontal.lower()}")
        else:
            halves.add(PLACE.get(m["half"].lower(), m["half"].lower()))
    return said, halves


def eye_named(text: str) -> str:
    """OD, OS, OU (both), or "" where no eye is named or two are."""
    named = {"OD" if m["od"] else "OS" if m["os"] else "OU" for m in EYES.finditer(text)}
    return named.pop() if len(named) == 1 else "OU" if named == {"OD", "OS"} else ""


def stranger(word: str) -> bool:
    low = word.lower()
    return low not in FRAME and low not in NUMBERS and not WHERE.fullmatch(low) and low not in ("supero", "infero")


def strange(text: str) -> str:
    return next((m[0] for m in WORDS.finditer(text) if stranger(m[0])), "")


def value_of(text: str) -> float:
    return float(NUMBERS[text.lower()]) if text.lower() in NUMBERS else float(text)
