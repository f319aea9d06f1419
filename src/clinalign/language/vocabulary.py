"""The vocabulary itself, as two tables; `lexicon` reads them.

Chest first: the fourteen CheXpert observations (arXiv 1901.07031) and their everyday wordings, then brain, abdomen and
bone, vessels, tissue and eye. An indented line continues the one before.
"""

FINDINGS_TABLE = """
nodule | lung | c | pulmonary nodule; lung nodule; nodular opacity; nodular density; nodular lesion; rounded opacity;
    coin lesion; micronodule
mass | lung | c | masses; lung mass; pulmonary mass; mass lesion; space-occupying lesion; mass effect lesion
consolidation | lung | b | consolidative opacity; airspace opacity; air space opacity; airspace disease; air space
    disease; airspace consolidation; air space consolidation; focal consolidation; lobar consolidation; consolidative
    change; infiltrate; infiltration; infiltrates
atelectasis | lung | b | lobe collapse; collapse of the lobe; atelectases; atelectatic change; atelectatic;
    subsegmental atelectasis; lobar collapse; lung
    collapse; volume loss; collapsed lung; collapsed lobe
pneumonia | lung | b | pneumonic; bronchopneumonia; infectious process; infective process; pneumonitis
edema | lung | m | oedema; pulmonary edema; pulmonary oedema; interstitial edema; alveolar edema; vascular congestion;
    pulmonary vascular congestion; pulmonary congestion; vascular engorgement
lung opacity | lung | c | opacity; opacities; opacification; density; ground glass opacity; hazy opacity; shadowing;
    opaque area; interstitial opacity; patchy opacity; airspace process
emphysema | lung | m | emphysematous change; emphysematous; hyperinflation; hyperinflated; hyperexpansion; copd;
    chronic obstructive pulmonary disease; bulla; bullae
fibrosis | lung | m | pulmonary fibrosis; fibrotic change; scarring; scar; interstitial lung disease; honeycombing
granuloma | lung | c | granulomata; calcified granuloma; granulomatous disease; calcified nodule
cavity | lung | b | cavities; cavitation; cavitary lesion; cavitating lesion
bronchiectasis | lung | m | bronchiectatic change
tuberculosis | lung | m | tb; miliary tuberculosis
pleural effusion | pleura | c | effusion; pleural fluid; fluid in the pleural space; hydrothorax; costophrenic angle
    blunting; blunting of the costophrenic angle; blunted costophrenic angle; blunting; blunted
pneumothorax | pleura | c | pneumothoraces; pneumothoraxes; ptx; air in the pleural space; hydropneumothorax;
    collapsed lung from air
pleural thickening | pleura | m | pleural scarring; pleural plaque; apical pleural thickening
pericardial effusion | heart | c | pericardial fluid
cardiomegaly | heart | m | enlarged heart; enlarged cardiac silhouette; enlarged cardiac shadow; enlarged heart
    shadow; enlarged cardiomediastinal silhouette; cardiac enlargement; enlargement of the cardiac silhouette;
    enlargement of the heart; enlarged heart size; big heart; dilated heart; increased heart size; cardiac dilatation
enlarged mediastinum | mediastinum | m | enlarged cardiomediastinum; widened mediastinum; mediastinal widening;
    mediastinal enlargement; widening of the mediastinum
lymphadenopathy | mediastinum | m | adenopathy; hilar enlargement; enlarged lymph node; enlarged lymph nodes; hilar
    fullness; hilar adenopathy; hilar lymphadenopathy; mediastinal lymphadenopathy
hiatal hernia | mediastinum | c | hiatus hernia; hernia
pneumomediastinum | mediastinum | m | mediastinal air
pneumoperitoneum | abdomen | m | free air; free intraperitoneal air; free subdiaphragmatic air; air under the
    diaphragm; free air under the diaphragm
fracture | bone | c | broken rib; broken bone; rib fracture; fractured rib; fractured; compression fracture;
    compression deformity; vertebral fracture; bony fracture; clavicle fracture; fracture line
dislocation | bone | c | dislocated; subluxation
degenerative change | bone | c | degenerative changes; degenerative disease; osteophyte; osteophytes; spondylosis;
    arthritis; osteoarthritis; degenerative disc disease; arthritic change
scoliosis | bone | m | scoliotic curvature; spinal curvature; dextroscoliosis; levoscoliosis
osteopenia | bone | m | osteoporosis; demineralization
kyphosis | bone | m | kyphotic
device | device | c | support device; medical device; tube; catheter; pacemaker; endotracheal tube; nasogastric tube;
    chest tube; central line; central venous catheter; central venous line; picc line; picc; port; icd; defibrillator;
    sternotomy wires; surgical clip; surgical clips; line; stent; drain; hardware; lead; leads; prosthesis
calcification | other | b | calcified; calcific density; aortic calcification; atherosclerotic calcification;
    atherosclerosis
tortuous aorta | mediastinum | c | aortic tortuosity; ectatic aorta; aortic ectasia; unfolded aorta; aorta is tortuous;
    thoracic aorta is tortuous; tortuous thoracic aorta; tortuous descending aorta; tortuous descending thoracic aorta;
    tortuosity of the aorta; tortuosity of the thoracic aorta; tortuosity of the descending aorta
mediastinal shift | mediastinum | c | shift of the mediastinum; tracheal deviation; shifted mediastinum
aneurysm | other | c | aneurysmal dilatation
elevated diaphragm | pleura | c | elevated right hemidiaphragm; elevated left hemidiaphragm; elevation of the right
    hemidiaphragm; elevation of the left hemidiaphragm; elevated right diaphragm; elevated left diaphragm; elevated
    hemidiaphragm; diaphragmatic elevation; elevation of the hemidiaphragm;
    eventration
subcutaneous emphysema | other | m | soft tissue emphysema; subcutaneous air
tumor | other | c | tumour; neoplasm; cancer; carcinoma; malignancy; malignant lesion; adenocarcinoma; glioma;
    meningioma; glioblastoma; hepatocellular carcinoma; lung cancer; brain tumor; brain tumour; liver cancer
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
diverticulitis | abdomen | m | inflamed diverticulum
diverticulosis | abdomen | m | diverticula; diverticular disease
cholecystitis | abdomen | m | inflamed gallbladder
hemorrhage | brain | b | retinal hemorrhage; vitreous hemorrhage; haemorrhage; bleed; bleeding; hematoma; haematoma;
    intracranial hemorrhage; subdural
    hematoma; epidural hematoma; subarachnoid hemorrhage; blood
infarct | brain | c | infarction; stroke; ischemia; ischaemia; ischemic change; ischemic lesion
midline shift | brain | c | shift of the midline; shift of midline structures
hydrocephalus | brain | m | ventricular dilatation; dilated ventricles; ventriculomegaly; enlarged ventricles
mass effect | brain | m | compression of the ventricle
brain edema | brain | m | cerebral edema; brain oedema; cerebral swelling; perilesional edema; vasogenic edema
atrophy | brain | m | cerebral atrophy; brain atrophy
hemorrhagic transformation | brain | m | hemorrhagic conversion; haemorrhagic transformation
demyelination | brain | m | demyelinating lesion; demyelinating disease
pulmonary embolism | vessel | c | pulmonary emboli; pulmonary embolus; pulmonary thromboembolism
thrombosis | vessel | m | thrombus; deep vein thrombosis; dvt; venous thrombosis
aortic dissection | vessel | c | dissection of the aorta; type a dissection; type b dissection
stenosis | vessel | c | stenoses; stenotic; canal stenosis; central canal stenosis; spinal stenosis
heart failure | heart | m | congestive heart failure; chf; cardiac failure; cardiac decompensation
aspiration | lung | m | aspiration pneumonitis
infection | tissue | b | infectious disease; superinfection
inflammation | tissue | m | inflammatory change; inflammatory infiltrate
necrosis | tissue | m | necrotic; necroses
dysplasia | tissue | m | dysplastic; high grade dysplasia; low grade dysplasia
adenoma | tissue | c | tubular adenoma; adenomatous polyp
polyp | tissue | c | polypoid lesion
lymphovascular invasion | tissue | m | vascular invasion; lymphatic invasion; angiolymphatic invasion
perineural invasion | tissue | m | neural invasion
meniscal tear | bone | c | torn meniscus; tear of the meniscus; tear of the medial meniscus;
    tear of the lateral meniscus;
    meniscus tear; tear of the posterior horn; tear of the anterior horn
disc herniation | bone | c | herniated disc; disc protrusion; disc bulge; herniated disk
ligament tear | bone | c | torn ligament; ligament rupture; cruciate ligament tear
diabetic retinopathy | eye | m | retinopathy; proliferative diabetic retinopathy; nonproliferative diabetic retinopathy
macular edema | eye | m | macular oedema; diabetic macular edema; cystoid macular edema
macular degeneration | eye | m | age related macular degeneration
glaucoma | eye | m | glaucomatous; glaucomatous cupping; optic disc cupping; cupping of the optic disc
papilledema | eye | m | papilloedema; optic disc swelling; optic disc edema; swollen optic disc
retinal detachment | eye | c | detached retina; detachment of the retina
microaneurysm | eye | c | microaneurysms
exudate | eye | c | hard exudate; retinal exudate; hard retinal exudate
cotton wool spot | eye | c | soft exudate; cotton wool patch
neovascularization | eye | m | neovascularisation; choroidal neovascularization; retinal neovascularization; new vessels
drusen | eye | c | soft drusen; hard drusen
enhancement | other | m | contrast enhancement; enhancing lesion; ring enhancement
abnormality | any | c | abnormal finding; abnormal findings; pathology; disease; disease process; anomaly;
    significant abnormality; abnormalities
acute abnormality | any | c | acute cardiopulmonary abnormality; acute disease; acute cardiopulmonary disease; acute
    process; acute cardiopulmonary process; acute pulmonary disease; acute pulmonary process; acute finding; acute
    cardiopulmonary finding; active disease; acute pulmonary abnormality; acute bony abnormality; acute osseous
    abnormality; acute intrathoracic abnormality; acute intrathoracic process; active pulmonary disease; active
    cardiopulmonary disease; active lung disease; acute lung disease; acute infiltrate or abnormality
other abnormality | any | c | other abnormal finding; additional abnormality; other finding; other disease; other
    pathology
"""
"""canonical name | group | noun: c ("a nodule"), m ("edema"), b (with or without article) | other wordings"""

SLOTS_TABLE = """
side | left | left; leftward; lt
side | right | right; rightward; rt
side | bilateral | bilateral; bilaterally; both sides; both lungs; both; either side; left and right; right and left;
    both left and right; on both sides; biapical
side | midline | midline; in the midline
zone | upper | upper; apical; apex; apices; superior; top; uppermost
zone | middle | middle; mid; lingula; lingular
zone | lower | lower; basal; base; bases; basilar; inferior; bottom; lowermost; bibasilar; bibasal; basally
location | central | central; centrally; perihilar; hilar; parahilar
location | peripheral | peripheral; peripherally; subpleural
location | anterior | anterior; anteriorly; ventral
location | posterior | posterior; posteriorly; dorsal
location | medial | medial; medially
location | lateral | lateral aspect; laterally; lateral part
location | frontal lobe | frontal lobe; frontal region
location | temporal lobe | temporal lobe; temporal region
location | parietal lobe | parietal lobe; parietal region
location | occipital lobe | occipital lobe; occipital region
location | cerebellum | cerebellum; cerebellar
location | retrocardiac | retrocardiac; behind the heart
size | small | small; tiny; little; minor; minimal; trace; subtle; small-sized
size | moderate | moderate; moderately; medium; moderate-sized; medium-sized; mid-sized; intermediate
size | large | large; big; massive; huge; extensive; sizable; sizeable; large-sized; considerable; substantial
severity | mild | mild; mildly; slight; slightly; low-grade
severity | severe | severe; severely; marked; markedly; gross; pronounced; advanced; high-grade
count | 0 | zero
count | 1 | one; single; solitary
count | 2 | two; pair of
count | 3 | three
count | 4 | four
count | 5 | five
count | 6 | six
count | 7 | seven
count | 8 | eight
count | 9 | nine
count | 10 | ten
count | many | multiple; several; numerous; many; diffuse; scattered
modality | x-ray | x-ray; xray; radiograph; radiography; plain film; plain radiograph; roentgenogram; x ray; cxr
modality | ct | ct; computed tomography; cat scan; ct scan; cect; ncct
modality | mri | mri; mr; magnetic resonance imaging; magnetic resonance; mri scan
modality | ultrasound | ultrasound; ultrasonography; sonography; sonogram; us scan
modality | pet | pet; positron emission tomography; pet scan; pet-ct
modality | mammography | mammography; mammogram
modality | fluoroscopy | fluoroscopy; fluoroscopic
modality | angiography | angiography; angiogram
plane | axial | axial; transverse; transaxial; cross-sectional
plane | sagittal | sagittal; midsagittal
plane | coronal | coronal
plane | frontal | frontal; pa; posteroanterior; posterior-anterior; ap; anteroposterior; antero-posterior; pa view; ap
    view
plane | lateral | lateral; lateral view
weighting | t1 | t1; t1-weighted; t1 weighted; t1w; t1wi
weighting | t2 | t2; t2-weighted; t2 weighted; t2w; t2wi
weighting | flair | flair; fluid attenuated inversion recovery
weighting | dwi | dwi; diffusion-weighted; diffusion weighted; diffusion
organ | lung | lung; pulmonary; lung field; lung fields; airspace; lung parenchyma
organ | heart | heart; cardiac silhouette; cardiac; cardiac shadow; cardiomediastinal silhouette; heart size; cardiac
    size; heart shadow; cardiac contour
organ | pleura | pleura; pleural space; pleural cavity; pleural; costophrenic angle; costophrenic sulcus
organ | mediastinum | mediastinum; mediastinal; mediastinal contour
organ | diaphragm | diaphragm; hemidiaphragm
organ | liver | liver; hepatic
organ | spleen | spleen; splenic
organ | kidney | kidney; renal
organ | bladder | bladder; urinary bladder
organ | gallbladder | gallbladder; gall bladder
organ | pancreas | pancreas; pancreatic
organ | stomach | stomach; gastric
organ | small bowel | small bowel; small intestine; duodenum; jejunum; ileum
organ | large bowel | large bowel; large intestine; colon; sigmoid; rectum; cecum
organ | intestine | intestine; bowel
organ | esophagus | esophagus; oesophagus
organ | trachea | trachea; tracheal
organ | aorta | aorta; aortic
organ | brain | brain; cerebrum; cerebral; cranium
organ | brainstem | brainstem; brain stem; pons; medulla
organ | ventricle | ventricle; lateral ventricle; left ventricle; right ventricle
organ | spinal cord | spinal cord
organ | spine | spine; vertebra; vertebrae; vertebral; thoracic spine; lumbar spine
organ | rib | rib
organ | clavicle | clavicle
organ | bone | bone; bony; osseous; skeleton; bony structures
organ | pelvis | pelvis; pelvic
organ | prostate | prostate
organ | uterus | uterus
organ | chest | chest; thorax; thoracic
organ | abdomen | abdomen; abdominal; upper abdomen; lower abdomen
organ | neck | neck
organ | head | head; skull
organ | extremity | extremity; lower extremity; upper extremity; lower limb; upper limb
organ | eye | eye
shape | round | round; rounded; circular
shape | oval | oval; elliptical
shape | irregular | irregular; irregularly; lobulated; spiculated
shape | linear | linear; plate-like
intensity | high | hyperdense; hyperintense; bright; white; high signal; high density; hyperechoic
intensity | low | hypodense; hypointense; dark; black; low signal; low density; hypoechoic
intensity | gray | gray; grey
normal | normal | normal; unremarkable; clear; intact; within normal limits; normal limits; normal size; normal in
    size; not enlarged; not dilated; well expanded; stable in appearance and normal; free of disease; healthy
normal | abnormal | abnormal; not clear; not normal
normal | enlarged | enlarged; dilated; increased in size; prominent; borderline enlarged; enlarged in size;
    enlarged size; above normal limits; clearly enlarged; abnormally large
"""
"""kind of slot | value | wordings"""
