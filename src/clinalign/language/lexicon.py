"""Words of radiology: findings with their synonyms, and the values of sides, zones, sizes and the other slots.

A small vocabulary, chest first (the fourteen CheXpert observations, arXiv 1901.07031, and their everyday wordings),
then brain, abdomen and bone. Phrases are matched as whole words, longest first, plural and hyphens allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

# canonical name | group | noun: c ("a nodule"), m ("edema"), b (with or without article) | other wordings
_FINDINGS = """
nodule | lung | c | pulmonary nodule; lung nodule; nodular opacity; nodular density; nodular lesion; rounded opacity; coin lesion; micronodule
mass | lung | c | masses; lung mass; pulmonary mass; mass lesion; space-occupying lesion; mass effect lesion
consolidation | lung | b | consolidative opacity; airspace opacity; air space opacity; airspace disease; air space disease; airspace consolidation; air space consolidation; focal consolidation; lobar consolidation; consolidative change; infiltrate; infiltration; infiltrates
atelectasis | lung | b | atelectases; atelectatic change; atelectatic; subsegmental atelectasis; lobar collapse; lung collapse; volume loss; collapsed lung; collapsed lobe
pneumonia | lung | b | pneumonic; bronchopneumonia; infectious process; infective process; pneumonitis
edema | lung | m | oedema; pulmonary edema; pulmonary oedema; interstitial edema; alveolar edema; vascular congestion; pulmonary vascular congestion; pulmonary congestion; vascular engorgement
lung opacity | lung | c | opacity; opacities; opacification; density; ground glass opacity; hazy opacity; shadowing; opaque area; interstitial opacity; patchy opacity; airspace process
emphysema | lung | m | emphysematous change; emphysematous; hyperinflation; hyperinflated; hyperexpansion; copd; chronic obstructive pulmonary disease; bulla; bullae
fibrosis | lung | m | pulmonary fibrosis; fibrotic change; scarring; scar; interstitial lung disease; honeycombing
granuloma | lung | c | granulomata; calcified granuloma; granulomatous disease; calcified nodule
cavity | lung | b | cavities; cavitation; cavitary lesion; cavitating lesion
bronchiectasis | lung | m | bronchiectatic change
tuberculosis | lung | m | tb; miliary tuberculosis
pleural effusion | pleura | c | effusion; pleural fluid; fluid in the pleural space; hydrothorax; costophrenic angle blunting; blunting of the costophrenic angle; blunted costophrenic angle; pleural effusions
pneumothorax | pleura | c | pneumothoraces; pneumothoraxes; ptx; air in the pleural space; hydropneumothorax; collapsed lung from air
pleural thickening | pleura | m | pleural scarring; pleural plaque; apical pleural thickening
pericardial effusion | heart | c | pericardial fluid
cardiomegaly | heart | m | enlarged heart; enlarged cardiac silhouette; enlarged cardiac shadow; enlarged heart shadow; enlarged cardiomediastinal silhouette; cardiac enlargement; enlargement of the cardiac silhouette; enlargement of the heart; enlarged heart size; big heart; dilated heart; increased heart size; cardiac dilatation
enlarged mediastinum | mediastinum | m | enlarged cardiomediastinum; widened mediastinum; mediastinal widening; mediastinal enlargement; widening of the mediastinum
lymphadenopathy | mediastinum | m | adenopathy; hilar enlargement; enlarged lymph node; enlarged lymph nodes; hilar fullness; hilar adenopathy; hilar lymphadenopathy; mediastinal lymphadenopathy
hiatal hernia | mediastinum | c | hiatus hernia; hernia
pneumomediastinum | mediastinum | m | mediastinal air
pneumoperitoneum | abdomen | m | free air; free intraperitoneal air; free subdiaphragmatic air; air under the diaphragm; free air under the diaphragm
fracture | bone | c | broken rib; broken bone; rib fracture; fractured rib; fractured; compression fracture; compression deformity; vertebral fracture; bony fracture; clavicle fracture; fracture line
dislocation | bone | c | dislocated; subluxation
degenerative change | bone | c | degenerative changes; degenerative disease; osteophyte; osteophytes; spondylosis; arthritis; osteoarthritis; degenerative disc disease; arthritic change
scoliosis | bone | m | scoliotic curvature; spinal curvature; dextroscoliosis; levoscoliosis
osteopenia | bone | m | osteoporosis; demineralization
kyphosis | bone | m | kyphotic
device | device | c | support device; medical device; tube; catheter; pacemaker; endotracheal tube; nasogastric tube; chest tube; central line; central venous catheter; central venous line; picc line; picc; port; icd; defibrillator; sternotomy wires; surgical clip; surgical clips; line; stent; drain; hardware; lead; leads; prosthesis
calcification | other | b | calcified; calcific density; aortic calcification; atherosclerotic calcification; atherosclerosis
tortuous aorta | mediastinum | c | aortic tortuosity; ectatic aorta; aortic ectasia; unfolded aorta
aneurysm | other | c | aneurysmal dilatation
elevated diaphragm | pleura | c | elevated hemidiaphragm; diaphragmatic elevation; elevation of the hemidiaphragm; eventration
subcutaneous emphysema | other | m | soft tissue emphysema; subcutaneous air
tumor | other | c | tumour; neoplasm; cancer; carcinoma; malignancy; malignant lesion; adenocarcinoma; glioma; meningioma; glioblastoma; hepatocellular carcinoma; lung cancer; brain tumor; brain tumour; liver cancer
metastasis | other | c | metastases; metastatic disease; metastatic lesion; secondary deposit; metastatic
lesion | other | c | focal lesion; focus of abnormality
cyst | abdomen | c | cystic lesion; simple cyst; hepatic cyst; renal cyst; cystic change
abscess | other | c | abscesses
stone | abdomen | c | calculus; calculi; gallstone; kidney stone; renal calculus; cholelithiasis; nephrolithiasis
cirrhosis | abdomen | m | cirrhotic; cirrhotic change
fatty liver | abdomen | m | hepatic steatosis; steatosis; fatty infiltration
hepatomegaly | abdomen | m | enlarged liver; liver enlargement
splenomegaly | abdomen | m | enlarged spleen
hydronephrosis | abdomen | m | dilated renal pelvis
ascites | abdomen | m | free fluid; peritoneal fluid; intraperitoneal fluid
bowel obstruction | abdomen | c | obstruction; small bowel obstruction; dilated bowel; dilated bowel loops; ileus
appendicitis | abdomen | m | inflamed appendix
diverticulitis | abdomen | m | diverticulosis; diverticula
hemorrhage | brain | b | haemorrhage; bleed; bleeding; hematoma; haematoma; intracranial hemorrhage; subdural hematoma; epidural hematoma; subarachnoid hemorrhage; blood
infarct | brain | c | infarction; stroke; ischemia; ischaemia; ischemic change; ischemic lesion
midline shift | brain | c | shift of the midline
hydrocephalus | brain | m | ventricular dilatation; dilated ventricles; ventriculomegaly; enlarged ventricles
mass effect | brain | m | compression of the ventricle
brain edema | brain | m | cerebral edema; brain oedema; cerebral swelling; perilesional edema; vasogenic edema
atrophy | brain | m | cerebral atrophy; brain atrophy
enhancement | other | m | contrast enhancement; enhancing lesion; ring enhancement
abnormality | any | c | abnormal finding; abnormal findings; abnormal; pathology; disease; disease process; anomaly; significant abnormality; abnormalities
acute abnormality | any | c | acute cardiopulmonary abnormality; acute disease; acute cardiopulmonary disease; acute process; acute cardiopulmonary process; acute pulmonary disease; acute pulmonary process; acute finding; acute cardiopulmonary finding; active disease; acute pulmonary abnormality; acute bony abnormality; acute osseous abnormality; acute intrathoracic abnormality; acute intrathoracic process; active pulmonary disease; active cardiopulmonary disease; active lung disease; acute lung disease; acute infiltrate or abnormality
other abnormality | any | c | other abnormal finding; additional abnormality; other finding; other disease; other pathology
"""

# slot: value: wordings
_SLOTS: dict[str, dict[str, str]] = {
    "side": {
        "left": "left; leftward; lt",
        "right": "right; rightward; rt",
        "bilateral": "bilateral; bilaterally; both sides; both lungs; both; either side; left and right; right and left; both left and right; on both sides; biapical",
        "midline": "midline; in the midline",
    },
    "zone": {
        "upper": "upper; apical; apex; apices; superior; top; uppermost",
        "middle": "middle; mid; lingula; lingular",
        "lower": "lower; basal; base; bases; basilar; inferior; bottom; lowermost; bibasilar; bibasal; basally",
    },
    "location": {
        "central": "central; centrally; perihilar; hilar; parahilar",
        "peripheral": "peripheral; peripherally; subpleural",
        "anterior": "anterior; anteriorly; ventral",
        "posterior": "posterior; posteriorly; dorsal",
        "medial": "medial; medially",
        "lateral": "lateral aspect; laterally; lateral part",
        "frontal lobe": "frontal lobe; frontal region",
        "temporal lobe": "temporal lobe; temporal region",
        "parietal lobe": "parietal lobe; parietal region",
        "occipital lobe": "occipital lobe; occipital region",
        "cerebellum": "cerebellum; cerebellar",
        "retrocardiac": "retrocardiac; behind the heart",
    },
    "size": {
        "small": "small; tiny; little; minor; minimal; trace; subtle; small-sized",
        "moderate": "moderate; moderately; medium; moderate-sized; medium-sized; mid-sized; intermediate",
        "large": "large; big; massive; huge; extensive; sizable; sizeable; large-sized; considerable; substantial",
    },
    "severity": {
        "mild": "mild; mildly; slight; slightly; low-grade",
        "severe": "severe; severely; marked; markedly; gross; pronounced; advanced; high-grade",
    },
    "count": {
        "0": "zero",
        "1": "one; single; solitary",
        "2": "two; pair of",
        "3": "three",
        "4": "four",
        "5": "five",
        "6": "six",
        "7": "seven",
        "8": "eight",
        "9": "nine",
        "10": "ten",
        "many": "multiple; several; numerous; many; diffuse; scattered",
    },
    "modality": {
        "x-ray": "x-ray; xray; radiograph; radiography; plain film; plain radiograph; roentgenogram; x ray; cxr",
        "ct": "ct; computed tomography; cat scan; ct scan; cect; ncct",
        "mri": "mri; mr; magnetic resonance imaging; magnetic resonance; mri scan",
        "ultrasound": "ultrasound; ultrasonography; sonography; sonogram; us scan",
        "pet": "pet; positron emission tomography; pet scan; pet-ct",
        "mammography": "mammography; mammogram",
        "fluoroscopy": "fluoroscopy; fluoroscopic",
        "angiography": "angiography; angiogram",
    },
    "plane": {
        "axial": "axial; transverse; transaxial; cross-sectional",
        "sagittal": "sagittal; midsagittal",
        "coronal": "coronal",
        "frontal": "frontal; pa; posteroanterior; posterior-anterior; ap; anteroposterior; antero-posterior; pa view; ap view",
        "lateral": "lateral; lateral view",
    },
    "weighting": {
        "t1": "t1; t1-weighted; t1 weighted; t1w; t1wi",
        "t2": "t2; t2-weighted; t2 weighted; t2w; t2wi",
        "flair": "flair; fluid attenuated inversion recovery",
        "dwi": "dwi; diffusion-weighted; diffusion weighted; diffusion",
    },
    "organ": {
        "lung": "lung; pulmonary; lung field; lung fields; airspace; lung parenchyma",
        "heart": "heart; cardiac silhouette; cardiac; cardiac shadow; cardiomediastinal silhouette; heart size; cardiac size; heart shadow; cardiac contour",
        "pleura": "pleura; pleural space; pleural cavity; pleural; costophrenic angle; costophrenic sulcus",
        "mediastinum": "mediastinum; mediastinal; mediastinal contour",
        "diaphragm": "diaphragm; hemidiaphragm",
        "liver": "liver; hepatic",
        "spleen": "spleen; splenic",
        "kidney": "kidney; renal",
        "bladder": "bladder; urinary bladder",
        "gallbladder": "gallbladder; gall bladder",
        "pancreas": "pancreas; pancreatic",
        "stomach": "stomach; gastric",
        "small bowel": "small bowel; small intestine; duodenum; jejunum; ileum",
        "large bowel": "large bowel; large intestine; colon; sigmoid; rectum; cecum",
        "intestine": "intestine; bowel",
        "esophagus": "esophagus; oesophagus",
        "trachea": "trachea; tracheal",
        "aorta": "aorta; aortic",
        "brain": "brain; cerebrum; cerebral; cranium",
        "brainstem": "brainstem; brain stem; pons; medulla",
        "ventricle": "ventricle; lateral ventricle; left ventricle; right ventricle",
        "spinal cord": "spinal cord",
        "spine": "spine; vertebra; vertebrae; vertebral; thoracic spine; lumbar spine",
        "rib": "rib",
        "clavicle": "clavicle",
        "bone": "bone; bony; osseous; skeleton; bony structures",
        "pelvis": "pelvis; pelvic",
        "prostate": "prostate",
        "uterus": "uterus",
        "chest": "chest; thorax; thoracic",
        "abdomen": "abdomen; abdominal; upper abdomen; lower abdomen",
        "neck": "neck",
        "head": "head; skull",
        "extremity": "extremity; lower extremity; upper extremity; lower limb; upper limb",
        "eye": "eye",
    },
    "shape": {
        "round": "round; rounded; circular",
        "oval": "oval; elliptical",
        "irregular": "irregular; irregularly; lobulated; spiculated",
        "linear": "linear; plate-like",
    },
    "intensity": {
        "high": "hyperdense; hyperintense; bright; white; high signal; high density; hyperechoic",
        "low": "hypodense; hypointense; dark; black; low signal; low density; hypoechoic",
        "gray": "gray; grey",
    },
    "normal": {
        "normal": "normal; unremarkable; clear; intact; within normal limits; normal limits; normal size; normal in size; not enlarged; not dilated; well expanded; stable in appearance and normal; free of disease; healthy",
        "enlarged": "enlarged; dilated; increased in size; prominent; borderline enlarged",
    },
}

GENERIC = frozenset({"abnormality", "acute abnormality", "other abnormality", "lesion", "lung opacity"})
"""Findings that only say that something is there; a specific finding beside them wins."""

IS_A = {
    "consolidation": ("lung opacity", "abnormality"),
    "pneumonia": ("lung opacity", "abnormality"),
    "atelectasis": ("lung opacity", "abnormality"),
    "edema": ("lung opacity", "abnormality"),
    "nodule": ("lesion", "lung opacity", "abnormality"),
    "mass": ("lesion", "lung opacity", "abnormality"),
    "tumor": ("mass", "lesion", "abnormality"),
    "metastasis": ("tumor", "lesion", "abnormality"),
    "cyst": ("lesion", "abnormality"),
    "granuloma": ("nodule", "lesion", "abnormality"),
    "cavity": ("lesion", "abnormality"),
}
"""Narrower finding -> what it also is."""

ORGAN_GROUP = {"lung": "lung", "heart": "heart", "pleura": "pleura", "mediastinum": "mediastinum", "bone": "bone"}
"""Organ called normal or clear -> the group of findings that this denies."""

ORDER = {
    "side": ("left", "right"),
    "zone": ("upper", "middle", "lower"),
    "size": ("small", "large", "moderate"),
    "severity": ("mild", "severe"),
    "count": ("1", "2", "3", "4", "5"),
    "modality": ("x-ray", "ct", "mri", "ultrasound"),
    "plane": ("axial", "sagittal", "coronal"),
    "weighting": ("t1", "t2"),
    "location": tuple(_SLOTS["location"]),
    "organ": ("lung", "heart", "liver", "spleen", "kidney", "bladder", "stomach", "brain", "pancreas"),
    "shape": ("round", "oval", "irregular"),
    "intensity": ("high", "low"),
}
"""Values offered as plausible alternatives when a claim of that slot is turned."""


@dataclass(frozen=True, slots=True)
class FindingInfo:
    """A finding's group ("lung", "pleura", ...) and its noun: c (countable), m (mass) or b (both usages)."""

    name: str
    group: str
    noun: str


Node = dict[str, object]
END = ""


def _read_findings() -> tuple[dict[str, FindingInfo], list[tuple[str, str, str]]]:
    infos: dict[str, FindingInfo] = {}
    phrases: list[tuple[str, str, str]] = []
    for line in _FINDINGS.strip().splitlines():
        name, group, noun, synonyms = (part.strip() for part in line.split("|"))
        infos[name] = FindingInfo(name, group, noun)
        phrases += [(phrase.strip(), "finding", name) for phrase in [name, *synonyms.split(";")]]
    return infos, phrases


def _trie(phrases: list[tuple[str, str, str]]) -> Node:
    root: Node = {}
    for phrase, kind, value in phrases:
        node = root
        for word in phrase.replace("-", " ").split():
            node = node.setdefault(word, {})  # type: ignore[assignment]
        node.setdefault(END, (kind, value))
    return root


FINDINGS, _phrases = _read_findings()
"""Canonical name -> what kind of noun it is."""

TRIE = _trie(_phrases + [(p.strip(), s, v) for s, vs in _SLOTS.items() for v, ps in vs.items() for p in ps.split(";")])
"""Word -> word -> ... -> "" -> (kind, canonical value)."""

SLOTS = tuple(kind for kind in _SLOTS if kind != "normal")
"""The kinds of claim besides the finding itself."""


@lru_cache(maxsize=4096)
def canonical(phrase: str, kind: str | None = None) -> tuple[str, str] | None:
    """(kind, value) of a phrase that is one lexicon entry ("Lt", "pulmonary nodules"), else None."""
    node: Node = TRIE
    for word in phrase.lower().replace("-", " ").split():
        step = node.get(word) or node.get(singular(word))
        if step is None:
            return None
        node = step  # type: ignore[assignment]
    found = node.get(END)
    return found if found and kind in (None, found[0]) else None  # type: ignore[index,return-value]


def singular(word: str) -> str:
    """A regular plural without its ending; irregular ones are listed in the lexicon."""
    if len(word) < 4 or word[-1] != "s" or word.endswith(("ss", "is", "us")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1]


def is_a(narrow: str, broad: str) -> bool:
    """Whether a finding entails another: a consolidation is a lung opacity."""
    return narrow == broad or broad in IS_A.get(narrow, ("abnormality",) if broad == "abnormality" else ())
