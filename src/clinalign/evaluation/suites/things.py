"""What a thing may be called in an answer: its name, slips of the keyboard, words of every day, a finding's signs."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from clinalign.evaluation.suites.denials import MARK
from clinalign.language.lexicon import canonical, meanings

EVERYDAY = """
person: people man men woman women boy girl child children kid baby toddler lady gentleman guy pedestrian passer-by
 human somebody someone anybody anyone player skier surfer rider cyclist worker tourist crowd
 adult teenager skateboarder he she him waiter waitress driver jogger runner hiker farmer chef cook teacher student
 soldier officer nurse climber swimmer skater sailor pilot musician singer guitarist dancer bride groom customer
 passenger commuter shopper vendor seller artist athlete batter pitcher catcher umpire referee biker snowboarder
 photographer spectator audience family couple friend mother father mum mom dad parent grandmother grandfather
 fisherman fishermen policeman fireman businessman businesswoman sportsman workman craftsman guest barista visitor
bicycle: bike cycle tricycle
car: volkswagen vw toyota bmw mercedes audi ford honda tesla porsche ferrari fiat volvo renault sedan automobile suv hatchback taxi cab minivan coupe convertible limousine
motorcycle: harley vespa motorbike moped scooter
airplane: airbus boeing cessna plane aeroplane jet aircraft airliner
bus: coach minibus double-decker omnibus
train: locomotive tram railcar
truck: lorry pickup
boat: ship yacht canoe kayak sailboat ferry dinghy vessel
traffic light: stoplight traffic-signal traffic-lights red-light green-light signal-light semaphore
 signali[sz]ed
fire hydrant: hydrant
stop sign: octagonal-sign octagonal-red-sign red-octagon sign-says-stop sign-reading-stop
parking meter: meter
bench: park-bench
bird: pigeon sparrow seagull gull duck goose geese parrot crow eagle swan owl chicken hen robin
cat: kitten kitty feline tabby tomcat moggy
dog: puppy puppies pup canine hound retriever labrador poodle terrier spaniel dachshund shepherd-dog beagle
 husky pooch mutt doggy doggie collie pug corgi bulldog chihuahua dalmatian
horse: pony ponies mare stallion foal equine
sheep: lamb ewe
cow: cattle calf calves bull bovine ox oxen heifer
elephant: pachyderm
bear: grizzly polar-bear cub
zebra: zebras
giraffe: giraffes
backpack: rucksack knapsack
umbrella: parasol brolly
handbag: purse tote
tie: necktie bow-tie
suitcase: luggage trolley-case
frisbee: flying-disc
skis: ski
snowboard: snow-board
sports ball: ball football basketball soccer-ball volleyball tennis-ball baseball-ball
kite: kites
baseball bat: bat
baseball glove: mitt glove
skateboard: skate-board longboard
surfboard: surf-board
tennis racket: racket racquet
bottle: bottles flask
wine glass: wineglass goblet glass-of-wine glass-of-red glass-of-white glass-of-white-wine glass-of-red-wine
cup: mug teacup
fork: forks
knife: knives
spoon: teaspoon
bowl: bowls
banana: bananas
apple: apples
sandwich: burger panini sub
orange: oranges
broccoli: broccoli-floret
carrot: carrots
hot dog: hotdog frankfurter
pizza: margherita pizza-slice
donut: doughnut
cake: gateau cupcake
chair: armchair stool
couch: sofa settee loveseat
potted plant: houseplant pot-plant plant
bed: bunk mattress
dining table: dinner-table kitchen-table
toilet: lavatory loo
tv: television telly tv-set monitor
laptop: notebook-computer macbook
mouse: computer-mouse
remote: remote-control
keyboard: keyboards
cell phone: mobile handset phone smartphone cellphone iphone
microwave: microwave-oven
oven: stove cooker
toaster: toasters
sink: washbasin basin
refrigerator: fridge freezer
book: books paperback novel
clock: wall-clock
vase: vases
scissors: shears
teddy bear: teddy stuffed-bear plush-bear
hair drier: hairdryer hair-dryer blow-dryer
toothbrush: toothbrushes
"""
"""Words of every day for the 80 categories of COCO; hyphens stand for blanks too."""

KINDS = {
    "animal": "bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe",
    "vehicle": "bicycle, car, motorcycle, airplane, bus, train, truck, boat",
    "furniture": "chair, couch, bed, dining table",
    "seat": "chair, couch, bench",
    "seating": "chair, couch, bench",
    "seating furniture": "chair, couch, bench",
    "pet": "dog, cat, bird",
    "livestock": "sheep, cow, horse",
    "cutlery": "fork, knife, spoon",
    "utensil": "fork, knife, spoon",
    "electronics": "cell phone, laptop, tv, remote, keyboard, mouse",
    "gadget": "cell phone, laptop, tv, remote, keyboard, mouse",
    "appliance": "microwave, oven, toaster, refrigerator",
    "container": "bottle, cup, bowl, vase, wine glass",
    "glassware": "bottle, wine glass",
    "drink": "bottle, cup, wine glass",
    "luggage": "suitcase, backpack, handbag",
    "aircraft": "airplane",
    "vegetable": "broccoli, carrot",
    "fruit": "banana, apple, orange",
    "food": "sandwich, broccoli, carrot, hot dog, pizza, donut, cake, banana, apple, orange",
}
"""A kind -> the categories that it takes in."""

CLINICAL = {
    "fracture": "cortical (?:disruption|breaks?|steps?)|bony injur(?:y|ies)|breaks?|broken(?! up)|fractured|cracked?",
    "hemorrhage": "bleeds?|bleeding|bled|blood|h(?:a)?ematomas?|h(?:a)?emorrhagic",
    "intracranial hemorrhage": "bleeds?|bleeding|bled|blood|h(?:a)?emorrhages?|h(?:a)?emorrhagic|h(?:a)?ematomas?",
    "pleural effusion": "effusions?|hydrothorax|pleural fluid|fluid|meniscus(?: sign)?",
    "pneumothorax": "pneumothora(?:x|ces)|ptx|deep sulcus sign|collapsed (?:left |right )?lung|air (?:in the pleural space|(?:between|around|outside) the (?:left |right )?lung)",
    "pacemaker": "generator|(?:single|dual|triple)[ -]chamber \\w+|pacing (?:device|wires?|leads?)|(?:cardiac|"
    "implanted|pacing) devices?|"
    "icd",
    "mass": "tumou?rs?|growths?|neoplasms?|lesions?|space-occupying \\w+",
    "tumor": "tumou?rs?|growths?|neoplasms?|lesions?|mass(?:es)?",
    "lesion": "lesions?|abnormal focus|bright focus",
    "polyp": "growths?|polypoid \\w+",
    "cardiomegaly": "(?:enlarged|big|large) (?:heart|cardiac silhouette)|(?:heart|cardiac) enlargement|"
    "cardiothoracic ratio (?:is )?(?:increased|raised|elevated)|(?:increased|raised) cardiothoracic ratio|"
    "(?:more than|exceed\\w*|over|above) half (?:of )?the (?:thora\\w+|chest) \\w+|"
    "(?:heart|cardiac silhouette) (?:is|looks|appears) (?:bigger|larger) than|(?:enlargement|"
    "dilatation) of the (?:heart|cardiac silhouette)|(?:heart|cardiac silhouette) (?:is|looks|"
    "appears) (?:(?!not\\b)\\w+ )?(?:big|enlarged|large|dilated)",
    "edema": "fluid overload|congestion|o?edematous",
    "pulmonary edema": "o?edema|fluid overload|congestion|perihilar haz\\w+",
    "pleural thickening": "pleura\\w* (?:is|are|appears?|looks?) (?:(?!not)\\w+ )?thickened|thickened pleura|"
    "(?<!wall )(?<!septal )(?<!bronchial )(?<!mucosal )thickening|(?:pleural|calcified) plaques?|plaques? along",
    "atelectasis": "collapse(?:d \\w+)?|atelectatic|atelectases",
    "pneumonia": "pneumonic|infection|infiltrates?",
    "infiltrate": "infiltrates?|infiltrations?",
    "consolidation": "consolidated|consolidative|opacification|air-?space (?:opacit(?:y|ies)|disease|shadowing)",
    "nodule": "nodular \\w+|nodular|coin lesion",
    "lung nodule": "nodular \\w+|nodular|coin lesion|nodules?",
    "emphysema": "emphysematous|copd",
    "fibrosis": "fibrotic|scarring|honeycombing|uip",
    "hernia": "herniat\\w+",
    "cavity": "cavit(?:y|ies|ation|ary)|cavitating",
    "lung opacity": "opacit(?:y|ies)|whiter|white area|haz(?:e|iness)|shadow(?:ing)?|density|densities|opacification|opacities|haz[ye]\\w* (?:patch\\w*|area|zone|veil)|"
    "(?:white|dense|grey|patchy) (?:patch|area|spot|region|zone)",
}
"""A finding of the concept graph -> what laymen and textbooks call it, beside its name."""

SIGNS = {
    "pneumothorax": r"pleural line|(?:lung|pleural) edge|(?:absent|no|lack of) (?:lung|vascular) markings|"
    r"collapsed lung|"
    r"deep sulcus|lucency|chest (?:drain|tube)",
    "pleural effusion": r"blunt\w*|menisc\w+|air-fluid|layering|lung base would|costophrenic",
    "fracture": r"lucent line|fracture line|step-?off|fragments?|displace\w+|cortical (?:break|irregular\w+)",
    "hemorrhage": r"hyperdens\w+|dense crescent",
    "intracranial hemorrhage": r"hyperdens\w+|dense crescent",
    "cardiomegaly": r"cardiothoracic ratio|enlarge\w+|dilatation|cardiac silhouette|heart shadow",
    "pneumonia": r"opacit\w+|air bronchograms?|silhouetted|consolidat\w+",
    "consolidation": r"opacit\w+|air bronchograms?|silhouetted",
    "infiltrate": r"opacit\w+|air bronchograms?|silhouetted",
    "nodule": r"round(?:ed)? (?:opacity|density|shadow)|well-circumscribed|spiculat\w+",
    "mass": r"round(?:ed)? (?:opacity|density|shadow)|large opacity|spiculat\w+",
    "polyp": r"protrusion|pedunculated|protruding|sessile",
    "pulmonary edema": r"kerley|bat-?wing|perihilar|cephali[sz]ation",
    "edema": r"kerley|bat-?wing|perihilar|cephali[sz]ation",
    "atelectasis": r"linear (?:bands?|opacit\w+)|volume loss|plate-?like|collapsed|pulled (?:up|over|to)|overinflated|crowded \w+",
    "pacemaker": r"metallic box|leads|wires|battery",
    "pleural thickening": r"irregular band|pleural (?:rind|peel)",
    "emphysema": r"bullae?|hyperinflat\w+|hyperlucen\w+",
    "fibrosis": r"reticula\w+|honeycomb\w*",
    "lesion": r"(?:hypo|hyper)(?:dense|echoic|intense) (?:area|focus|spot|region)|dark spot|bright (?:spot|focus)|pigmented \w+",
    "hernia": r"retrocardiac|gastric fundus|bowel loops?|(?:through|above) (?:a defect in )?the (?:left |right )?"
    r"(?:hiatus|(?:hemi)?diaphragm)|(?:in|into|up into) the (?:chest|thorax)|protru\w+",
    "cavity": r"thick-walled|thin-walled",
}
"""A finding -> what it looks like, so that who points at it takes the finding for granted."""

_LUNG = (
    r"lungs?|lung fields?|airspaces?|air spaces?|parenchyma|interstiti\w+|(?:pulmonary|lung|vascular) (?:vessels|markings|"
    r"vasculature|architecture)|vessels|bases|apices|hila|lobes|zones|r[uml]l|l[ul]l|(?:right|left|upper|lower|middle) "
    r"(?:lung|lobe|zone)s?"
)
_PLEURA = (
    r"pleura\w*|(?:costophrenic |cp )?(?:angles?|sulci|recess\w*)|(?:hemi)?diaphragms?|fissures?"
)
_BRAIN = r"brain|scan|ct|head|parenchyma|ventricles|cisterns|sulci|grey-white|gray-white"
ORGANS = {
    "fracture": r"bones?|bony|osseous|cortex|cortices|cortical|skelet\w+|ribs?|clavicles?|vertebra\w*|alignment|radius|ulna",
    "pleural effusion": _PLEURA,
    "pleural thickening": r"pleura\w*",
    "hemorrhage": _BRAIN,
    "intracranial hemorrhage": _BRAIN,
    "polyp": r"colon\w*|mucosa\w*",
    "lesion": r"skin|retina|macula|liver|parenchyma|mucosa|scan|brain|breast",
    "cardiomegaly": r"heart|cardiac (?:silhouette|size|shadow|contour)|cardiomediastinal \w+|ctr|cardiothoracic ratio",
    "hernia": r"diaphragm|organs|bowel|abdominal wall|retrocardiac \w+|stomach|stomach bubble|gastric bubble",
    "emphysema": r"lung volumes?|inflation|diaphragms?|(?:both )?lungs",
    "pneumothorax": r"lungs?|pleura\w*",
    **dict.fromkeys(
        (
            "nodule", "lung nodule", "mass", "consolidation", "infiltrate", "pneumonia", "edema", "pulmonary edema", "atelectasis",
            "fibrosis", "lung opacity", "cavity", "opacity",
        ),
        _LUNG,
    ),
}
"""A finding -> the places that, called normal, deny it."""

SOUND = (
    r"(?<!not )(?<!n't )(?<!otherwise )(?:intact|unblemished|homogeneous|continuous|unbroken|unremarkable|normal(?:ly)?|uninterrupted|smooth|"
    r"preserved|dry|in one piece|whole|crisp|well aerated|aerated|fully expanded|delicate|symmetrical?|domed|sharply|"
    r"within (?:normal )?limits|age-appropriate|physiological|(?:usual|normal) (?:size|place|position|height|width|calibre|caliber)|"
    r"anatomical|kept|fine(?! \w)|expanded|where (?:it|they) (?:should be|belongs?)|in (?:its|their) (?:usual|normal|proper) places?|below the (?:diaphragm|cut-?off|threshold|limit)|"
    r"sharp|clear|free|thin|healthy|regular|well-defined)"
)

ALTERED = (
    r"(?:thickened|enlarged|widened|blunted|displaced|raised|elevated|obscured|blurred|collapsed|broken|swollen|dilated|"
    r"congested|interrupted|effaced|compressed|hyperinflated|big|large|affected|involved|abnormal)\b"
)

NORMAL = {
    "fracture": r"\bno (?:\w+ ){0,2}(?:bony|osseous|skeletal|bone) (?:abnormalit\w+|injur\w+|lesions?|patholog\w+|"
    r"trauma|findings?)\b",
    **dict.fromkeys(("consolidation", "infiltrate", "lung opacity", "opacity"), r"\bno (?:\w+ ){0,2}(?:airspace|air-space|alveolar|parenchymal) \w+|\blungs? [\w ]{0,20}(?:dark|black|lucent)\b"),
    "fibrosis": r"\bno (?:\w+ ){0,2}(?:interstitial|reticular|parenchymal) \w+",
    "pneumonia": r"\bno (?:\w+ ){0,2}(?:cardiopulmonary|airspace|air-space|pulmonary|intrathoracic|chest|lung|infective|infectious) "
    r"(?:abnormalit\w+|process\w*|disease|patholog\w+|findings?|focus|foci)\b",
    "pneumothorax": r"\blungs?(?: (?:is|are|look|appear|remain))?(?: both| already| now)? (?:fully|completely|well) "
    r"(?:expanded|inflated)|\b(?:lung|vascular) markings (?:extend|reach)\w*",
    "mass": r"\blungs? (?:is|are) clear\b|\bclear lungs\b",
    "lesion": r"\blungs? (?:is|are) clear\b|\bclear lungs\b",
    "nodule": r"\bclear lungs\b",
    "pacemaker": r"\b(?:no|free of|without|any)\b[^.;]{0,20}\b(?:hardware|devices?|implants?)\b",
    "pleural thickening": r"\bpleura\w*[^.;]{0,20}(?:n't|\bnot|\bnor|\bnone) (?:\w+ )?thickened",
    "emphysema": r"\bnormal(?:ly)? inflat\w+",
    "edema": r"\blungs? (?:is|are)(?: already)? dry\b",
    "cardiomegaly": r"\b(?:heart|cardiac \w+)(?: is| does| looks| appears)?(?:n't| not)(?: \w+){0,2} (?:big|large|"
    r"enlarged|dilated)\b"
    r"|\b(?:heart|cardiac size)\b[^.;]{0,30}?\bsmall\b|\bsmall heart\b|\bless than half\b|(?:n't|\bnot) (?:more than|exceed\w*|over) half\b",
}
"""A finding -> other words that deny it and that the claims do not hold."""

NOBODY = (
    r"\b(?:nobody|no one|no-one|deserted|not a soul|unoccupied|uninhabited|devoid of people|without (?:any )?people|unmanned|"
    r"(?:empty|abandoned) (?:\w+ )?(?:street|hallway|corridor|beach|room|platform|bench|scene|landscape|road|field|"
    r"hall|park|square|court|stadium|path|office|street|station|building|boat|house))\b"
)
BARE = r"\b(?:bare|empty|unfurnished) (?:\w+ )?(?:room|flat|apartment|house|hall)\b|\b(?:room|flat|apartment|hall) is (?:\w+ )?(?:bare|empty|unfurnished)\b"
STANDS_FOR = r"\b(?:it|which|that|object|one|fruit)(?: is|'s| are) (?:\w+ly )?(?:an? )?(?:\w+ )?"
OBJECTS = (
    r"shaped|rack|lane|park|path|bowl|food|toy|collar|leash|house|kennel|sign|seat|stop|station|belt|holder|shelf|shop|store|stall|costume|statue|figurine|drawing|painting|cloth|stand|helmet|shop"
)
"""What makes another thing of a name before it: "dog bowl", "car park"."""


class Thing(NamedTuple):
    """`plain`: its name in small letters; `called`: every word for it; `loosely`: also a reference by its last word
    ("the table"); `none`: words that say there is nothing of its kind; `other`: something of its kind that is not it;
    `signs` and `normal` of a finding, which `finding` names in the concept graph; `words` that may be misspelt."""

    plain: str
    called: re.Pattern[str]
    loosely: re.Pattern[str]
    none: re.Pattern[str] | None
    other: re.Pattern[str] | None
    signs: re.Pattern[str] | None
    normal: re.Pattern[str] | None
    finding: str | None
    words: tuple[str, ...]


def _listed() -> dict[str, list[str]]:
    joined = EVERYDAY.strip().replace("\n ", " ")
    return {name: words.split() for name, _, words in (line.partition(":") for line in joined.split("\n"))}


WORDS = _listed()


def _pattern(words: list[str]) -> str:
    """Words in the singular or plural, blanks and hyphens alike."""
    out = []
    for word in sorted(set(words), key=len, reverse=True):
        stem = r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", word)))
        if word.endswith(("ss", "x", "us")):
            out.append(rf"{stem}(?:es)?")
        elif word.endswith("y") and word[-2:-1] not in "aeou":
            out.append(rf"{stem[:-1]}(?:y|ies)")
        else:
            out.append(rf"{stem.removesuffix('s')}(?:s|es)?")
    return "|".join(out)


@lru_cache(maxsize=1024)
def thing_of(name: str) -> Thing:
    """Everything by which a thing may be known."""
    plain = " ".join(re.split(r"[\s_-]+", name.strip().lower()))
    single = plain.removesuffix("s") if plain not in WORDS and not plain.endswith(("ss", "is", "us")) else plain
    everyday = WORDS.get(plain, WORDS.get(single, []))
    known = None if everyday else canonical(plain, "finding") or canonical(re.sub(r"^lung ", "", plain), "finding")
    finding = known[1] if known else None
    called = [_pattern([single, *([finding] if finding else []), *everyday])]
    called += [CLINICAL[finding]] if finding in CLINICAL else []
    above = [kind for kind, of in KINDS.items() if single in of.split(", ")]
    kinds = _pattern([*above, *(["creature"] if "animal" in above else [])]) if above else ""
    other_kind = rf"(?:{kinds})\b[^,.;]{{0,40}}?"
    another = (
        rf"|\b(?:the|that) (?:only )?(?:\w+ )?{other_kind} (?:is (?:\w+ly )?an?|consists? of(?: \w+)?) (?!(?:\w+ ){{0,2}}{MARK})"
        rf"|\bthe only (?:\w+ )?{other_kind} are (?!(?:\w+ ){{0,2}}{MARK})"
    )
    mates = [mate for kind in above for mate in KINDS[kind].split(", ") if mate != single]
    others = [w for mate in mates for w in (mate, *WORDS.get(mate, []))]
    if finding and "oed" in plain:
        called.append(plain.replace("oed", "o?ed"))
    names = rf"\b(?:{'|'.join(called)})\b(?![\s-](?:{OBJECTS})\b)"
    head = _pattern([single.split()[-1]]) if " " in single and not finding else ""
    none = [rf"\b(?:no|any|without|not a|not a single|not one) (?:\w+ )?(?:pieces? of )?(?:{kinds})\b"] if above else []
    none += [NOBODY] if single == "person" else [BARE] if "furniture" in above else []
    return Thing(
        plain=single,
        called=re.compile(names + _after(("no ", "any "), head)),
        loosely=re.compile(names + _after(("no ", "any ", "the ", "this ", "that "), head)),
        none=_compiled("|".join(none)),
        other=_compiled(rf"{STANDS_FOR}(?:{_pattern(others)})\b{another}" if others else ""),
        signs=_compiled(rf"\b(?:{SIGNS[finding]})\b" if finding in SIGNS else ""),
        normal=_compiled("|".join(_normal(finding or ""))),
        finding=finding,
        words=tuple(w for w in {*single.split(), *everyday} if len(w) >= 5),
    )


def _normal(finding: str) -> list[str]:
    """What denies a finding without its name: its place called normal, and other words."""
    organ = ORGANS.get(finding)
    sound = [rf"\b(?:{organ})\b[^.;]{{0,40}}?\b{SOUND}\b", rf"\b{SOUND}(?:-sized)? (?:{organ})\b"] if organ else []
    sound += [rf"\b(?:{organ})\b[^.;]{{0,30}}?(?:n't|\bnot|\bneither|\bnor) (?:\w+ly )?{ALTERED}"] if organ else []
    return [*sound, *([NORMAL[finding]] if finding in NORMAL else [])]


def _after(words: tuple[str, ...], head: str) -> str:
    """The last word of a name where one of these words stands before it."""
    return "".join(rf"|(?<=\b{word})(?:{head})\b" for word in words) if head else ""


def _compiled(pattern: str) -> re.Pattern[str] | None:
    return re.compile(pattern) if pattern else None


def marked(text: str, thing: Thing, *, loose: bool) -> str:
    """The text with `MARK` wherever it names the thing, and for "a small one" after that; slips set right before.

    `loose`: the question took the thing for granted, so that "the table" is the dining table."""
    named = (thing.loosely if loose else thing.called).sub(MARK, mended(text, thing))
    first, mark, rest = named.partition(MARK)
    return first + mark + _ANAPHOR.sub(rf"\1{MARK}", rest) if mark else named


_ANAPHOR = re.compile(r"(\b(?:a|an|another)(?: [\w-]+){1,3} )one\b")


def mended(text: str, thing: Thing) -> str:
    """The text with slips of the keyboard in the thing's name set right: one letter lost, doubled, swapped or wrong."""
    for word in thing.words:
        if word in text.lower():
            continue
        for found in re.findall(rf"\b{word[0]}\w{{{len(word) - 2},{len(word) + 1}}}\b", text):
            plain = found.lower()
            if meanings(plain):
                continue
            if _slip(plain, word) or _slip(plain.removesuffix("s"), word):
                text = text.replace(found, word + ("s" if plain.endswith("s") and not word.endswith("s") else ""))
    return text


def _slip(a: str, b: str) -> bool:
    """Whether two words differ by two swapped letters, or by one: lost or doubled in a long word, wrong in a longer.
    Short words that differ by a letter are words of their own ("horse", "house")."""
    if a != b and len(b) >= 6 and sorted(a) == sorted(b):
        return True
    if a == b or abs(len(a) - len(b)) > 1:
        return False
    n = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    if len(a) != len(b):
        return len(b) >= 6 and (a[n + 1 :] == b[n:] if len(a) > len(b) else a[n:] == b[n + 1 :])
    swapped = a[n : n + 2] == b[n : n + 2][::-1] and a[n + 2 :] == b[n + 2 :]
    return swapped or (len(b) >= 7 and a[n + 1 :] == b[n + 1 :])
