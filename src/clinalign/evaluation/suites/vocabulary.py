"""Words for things: of every day, of the clinic, signs of findings, and what a place is called where there are none."""

from __future__ import annotations

EVERYDAY = """
person: people man men woman women boy girl child children kid baby toddler lady gentleman guy pedestrian passer-by
 human somebody someone anybody anyone player skier surfer rider cyclist worker tourist crowd
 adult teenager skateboarder he she him waiter waitress driver jogger runner hiker farmer chef cook teacher student
 soldier officer nurse climber swimmer skater sailor pilot musician singer guitarist dancer bride groom customer
 passenger commuter shopper vendor seller artist athlete batter pitcher catcher umpire referee biker snowboarder
 photographer spectator audience family couple friend mother father mum mom dad parent grandmother grandfather
 fisherman fishermen policeman fireman businessman businesswoman sportsman workman craftsman guest barista visitor
bicycle: bike cycle tricycle
car: volkswagen vw toyota bmw mercedes audi ford honda tesla porsche ferrari fiat volvo renault
 sedan automobile suv hatchback taxi cab minivan coupe convertible limousine
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
    "pneumothorax": "pneumothora(?:x|ces)|ptx|deep sulcus sign|collapsed (?:left |right )?lung|free air|"
    "air (?:in the pleural space|(?:between|around|outside) the (?:left |right )?lung)",
    "pacemaker": "generator|(?:single|dual|triple)[ -]chamber \\w+|pacing (?:device|wires?|leads?)|(?:cardiac|"
    "implanted|pacing) devices?|"
    "icd",
    "mass": "tumou?rs?|growths?|neoplasms?|lesions?|space-occupying \\w+",
    "tumor": "tumou?rs?|growths?|neoplasms?|lesions?|mass(?:es)?",
    "lesion": "lesions?|abnormal focus|bright focus",
    "polyp": "growths?|polypoid \\w+",
    "cardiomegaly": "(?:heart|cardiac silhouette)[^.;]{0,30}?(?:two thirds|three quarters|(?:5[1-9]|[6-9]\\d) ?(?:%|"
    "per ?cent))|"
    "(?:enlarged|big|large) (?:heart|cardiac silhouette)|(?:heart|cardiac) enlargement|"
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
    "nodule": "spots?|nodular \\w+|nodular|coin lesion",
    "lung nodule": "spots?|nodular \\w+|nodular|coin lesion|nodules?",
    "emphysema": "emphysematous|copd",
    "fibrosis": "fibrotic|scarring|honeycombing|uip",
    "hernia": "herniat\\w+",
    "cavity": "cavit(?:y|ies|ation|ary)|cavitating",
    "lung opacity": "opacit(?:y|ies)|whiter|white area|haz(?:e|iness)|shadow(?:ing)?|density|densities|opacification|"
    "opacities|haz[ye]\\w* (?:patch\\w*|area|zone|veil)|"
    "(?:white|dense|grey|patchy) (?:patch|area|spot|region|zone)",
}
"""A finding of the concept graph -> what laymen and textbooks call it, beside its name."""

FAMILIES = """
tear torn tears rupture ruptured discontinuity discontinuous detached
fracture fractured break broken breaks crack cracked
herniation herniated hernia protrusion extrusion protruding extruded bulge bulging
stone calculus calculi gallstone lithiasis cholelithiasis nephrolithiasis urolithiasis concrement
calcification calcified calcs microcalcification calcium
enlargement enlarged bigger
thickening thickened
dilatation dilation dilated widened ectatic
stenosis narrowing narrowed stenosed stenotic occlusion occluded
swelling edema edematous swollen
hemorrhage hematoma bleed bleeding bled blood hemorrhagic
embolism embolus emboli thrombus thrombi thrombosis clot filling-defect
infarct infarction stroke ischemia ischemic
metastasis metastases metastatic secondary-deposit
lymphadenopathy adenopathy enlarged-node enlarged-lymph-node swollen-node
hydronephrosis dilated-collecting-system dilated-renal-pelvis
ascites free-fluid peritoneal-fluid intraperitoneal-fluid
aneurysm aneurysmal outpouching
ulcer ulceration ulcerated ulcerative
atrophy atrophic atrophied
catheter line
tube drain
stent mesh
caries decay decayed
microcalcification calcification calcified calcs calcium
melanoma melanocytic
cyst cystic
tumor tumour neoplasm growth cancer carcinoma malignancy
mass lump tumor tumour neoplasm growth
polyp polypoid
abscess pus
prosthesis implant arthroplasty
retraction retracted
scoliosis curvature scoliotic
neovascularization neovascularisation new-vessel
pneumoperitoneum free-air
osteomyelitis bone-infection
hypertrophy hypertrophic hypertrophied thickened
exudate exudative
granuloma granulomatous
necrosis necrotic
inflammation inflamed inflammatory
invasion invading invades infiltrates infiltration
displacement displaced shift shifted
distortion distorted
"""
"""Words of one kind of finding, the head of a name first: who says one of them speaks of the finding."""

SIGNS = {
    "pneumothorax": r"pleural line|(?:lung|pleural) edge|(?:absent|no|lack of) (?:lung|vascular) markings|"
    r"collapsed lung|"
    r"deep sulcus|lucency|chest (?:drain|tube)",
    "pleural effusion": r"blunt\w*|menisc\w+|air-fluid|layering|lung base would|costophrenic",
    "fracture": r"lucent line|fracture line|step-?off|fragments?|displace\w+|cortical (?:break|irregular\w+)|"
    r"cort(?:ex|ices)[^.;]{0,20} (?:disrupt|breach|interrupt|discontinu)\w+",
    "hemorrhage": r"hyperdens\w+|dense crescent",
    "intracranial hemorrhage": r"hyperdens\w+|dense crescent",
    "cardiomegaly": r"cardiothoracic ratio|heart border|enlarge\w+|dilatation|cardiac silhouette|heart shadow",
    "pneumonia": r"opacit\w+|air bronchograms?|silhouetted|consolidat\w+",
    "consolidation": r"opacit\w+|air bronchograms?|silhouetted",
    "infiltrate": r"opacit\w+|air bronchograms?|silhouetted",
    "nodule": r"round(?:ed)? (?:opacity|density|shadow)|well-circumscribed|spiculat\w+",
    "mass": r"round(?:ed)? (?:opacity|density|shadow)|large opacity|spiculat\w+",
    "polyp": r"protrusion|pedunculated|protruding|sessile",
    "pulmonary edema": r"kerley|bat-?wing|perihilar|cephali[sz]ation",
    "edema": r"kerley|bat-?wing|perihilar|cephali[sz]ation",
    "atelectasis": r"linear (?:bands?|opacit\w+)|volume loss|plate-?like|collapsed|pulled (?:up|over|to)|"
    r"overinflated|crowded \w+",
    "pacemaker": r"metallic box|leads|wires|battery",
    "pleural thickening": r"irregular band|pleural (?:rind|peel)",
    "emphysema": r"bullae?|hyperinflat\w+|hyperlucen\w+",
    "fibrosis": r"reticula\w+|honeycomb\w*",
    "lesion": r"(?:hypo|hyper)(?:dense|echoic|intense) (?:area|focus|spot|region)|dark spot|bright (?:spot|focus)|"
    r"pigmented \w+",
    "hernia": r"retrocardiac|gastric fundus|bowel loops?|(?:through|above) (?:a defect in )?the (?:left |right )?"
    r"(?:hiatus|(?:hemi)?diaphragm)|(?:in|into|up into) the (?:chest|thorax)|protru\w+",
    "cavity": r"thick-walled|thin-walled",
}
"""A finding -> what it looks like, so that who points at it takes the finding for granted."""

_LUNG = (
    r"lungs?|lung fields?|airspaces?|air spaces?|parenchyma|interstiti\w+|(?:pulmonary|lung|vascular) (?:vessels|"
    r"markings|"
    r"vasculature|architecture)|vessels|bases|apices|hila|lobes|zones|r[uml]l|l[ul]l|(?:right|left|upper|lower|middle) "
    r"(?:lung|lobe|zone)s?"
)
_PLEURA = r"pleura\w*|(?:costophrenic |cp )?(?:angles?|sulci|recess\w*)|(?:hemi)?diaphragms?|fissures?"
_BRAIN = r"brain|scan|ct|head|parenchyma|ventricles|cisterns|sulci|grey-white|gray-white"
ORGANS = {
    "fracture": r"bones?|bony|osseous|cortex|cortices|cortical|skelet\w+|ribs?|clavicles?|vertebra\w*|alignment|"
    r"radius|ulna",
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
            "nodule",
            "lung nodule",
            "mass",
            "consolidation",
            "infiltrate",
            "pneumonia",
            "edema",
            "pulmonary edema",
            "atelectasis",
            "fibrosis",
            "lung opacity",
            "cavity",
            "opacity",
        ),
        _LUNG,
    ),
}
"""A finding -> the places that, called normal, deny it."""

SOUND = (
    r"(?<!not )(?<!n't )(?<!otherwise )(?:intact|unblemished|homogeneous|continuous|unbroken|unremarkable|"
    r"normal(?:ly)?|uninterrupted|smooth|"
    r"preserved|dry|in one piece|whole|crisp|well aerated|aerated|fully expanded|delicate|symmetrical?|domed|sharply|"
    r"within (?:normal )?limits|age-appropriate|physiological|(?:usual|normal) (?:size|place|position|height|width|"
    r"calibre|caliber)|"
    r"anatomical|kept|fine(?! \w)|expanded|where (?:it|they) (?:should be|belongs?)|in (?:its|their) (?:usual|normal|"
    r"proper) places?|below the (?:diaphragm|cut-?off|threshold|limit)|"
    r"sharp|clear|free|thin|healthy|regular|well-defined)"
)

ALTERED = (
    r"(?:increased|thickened|enlarged|widened|blunted|displaced|raised|elevated|obscured|blurred|collapsed|broken|swollen|"
    r"dilated|"
    r"congested|interrupted|effaced|compressed|hyperinflated|big|large|affected|involved|abnormal)\b"
)

NORMAL = {
    "fracture": r"\bno (?:\w+ ){0,2}(?:bony|osseous|skeletal|bone) (?:abnormalit\w+|injur\w+|lesions?|patholog\w+|"
    r"trauma|findings?)\b",
    **dict.fromkeys(
        ("consolidation", "infiltrate", "lung opacity", "opacity"),
        r"\bno (?:\w+ ){0,2}(?:airspace|"
        r"air-space|alveolar|parenchymal) \w+|\blungs? [\w ]{0,20}(?:dark|black|lucent)\b",
    ),
    "fibrosis": r"\bno (?:\w+ ){0,2}(?:interstitial|reticular|parenchymal) \w+",
    "pneumonia": r"\bno (?:\w+ ){0,2}(?:cardiopulmonary|airspace|air-space|pulmonary|intrathoracic|chest|lung|"
    r"infective|infectious) "
    r"(?:abnormalit\w+|process\w*|disease|patholog\w+|findings?|focus|foci)\b",
    "pneumothorax": r"\blungs?(?: (?:is|are|look|appear|remain))?(?: both| already| now)? (?:fully|completely|well) "
    r"(?:expanded|inflated)|\b(?:lung|vascular) markings (?:extend|reach)\w*",
    "mass": r"\blungs? (?:is|are) clear\b|\bclear lungs\b",
    "lesion": r"\blungs? (?:is|are) clear\b|\bclear lungs\b",
    "nodule": r"\bclear lungs\b",
    **dict.fromkeys(
        ("metastasis", "bone metastasis"),
        r"\bno (?:\w+ ){0,2}(?:suspicious|aggressive|destructive|lytic|sclerotic|focal) "
        r"(?:\w+ ){0,3}(?:lesions?|foci|focus)",
    ),
    "pacemaker": r"\b(?:no|free of|without|any)\b[^.;]{0,20}\b(?:hardware|devices?|implants?)\b",
    "pleural thickening": r"\bpleura\w*[^.;]{0,20}(?:n't|\bnot|\bnor|\bnone) (?:\w+ )?thickened",
    "emphysema": r"\bnormal(?:ly)? inflat\w+",
    "edema": r"\blungs? (?:is|are)(?: already)? dry\b",
    "cardiomegaly": r"\b(?:heart|cardiac \w+)[^.;]{0,30}?\b(?:[34]\d|50) ?(?:%|per ?cent)|\b(?:heart|"
    r"cardiac \w+)(?: is| does| looks| appears)?(?:n't| not)(?: \w+){0,2} (?:big|large|"
    r"enlarged|dilated)\b"
    r"|\b(?:heart|cardiac size)\b[^.;]{0,30}?\bsmall\b|\bsmall heart\b|\bless than half\b|(?:n't|\bnot) (?:more than|"
    r"exceed\w*|over) half\b",
}
"""A finding -> other words that deny it and that the claims do not hold."""

NOBODY = (
    r"\b(?:nobody|no one|no-one|deserted|not a soul|unoccupied|uninhabited|devoid of people|without (?:any )?people|"
    r"unmanned|"
    r"(?:empty|abandoned) (?:\w+ )?(?:street|hallway|corridor|beach|room|platform|bench|scene|landscape|road|field|"
    r"hall|park|square|court|stadium|path|office|street|station|building|boat|house))\b"
)
BARE = (
    r"\b(?:bare|empty|unfurnished) (?:\w+ )?(?:room|flat|apartment|house|hall)\b|"
    r"\b(?:room|flat|apartment|hall) is (?:\w+ )?(?:bare|empty|unfurnished)\b"
)
STANDS_FOR = r"\b(?:it|which|that|object|one|fruit)(?: is|'s| are) (?:\w+ly )?(?:an? )?(?:\w+ )?"
OBJECTS = (
    r"shaped|rack|lane|park|path|bowl|food|toy|collar|leash|house|kennel|sign|seat|stop|station|belt|holder|shelf|"
    r"shop|store|stall|costume|statue|figurine|drawing|painting|cloth|stand|helmet|shop"
)
"""What makes another thing of a name before it: "dog bowl", "car park"."""
