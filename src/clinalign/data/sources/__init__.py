"""Every source by the name that a recipe uses, one file a source (kin share one): the literal of `data.source` is made
of this table. An own reader is named by its dotted path, `my.module:reader`, and needs no entry.

A reader is a function of (options, run folder, quarantine) that gives examples; most of them give rows under our column
names to `data.ingest.ingest`, which does the rest.
"""

READERS = {
    "phantom": "phantoms:read",
    "table": "table:read",
    "real": "real:read",
    "slake": "slake:read",
    "vqa_rad": "vqa_rad:read",
    "path_vqa": "path_vqa:read",
    "pmc_vqa": "multiple_choice:read_pmc_vqa",
    "omnimed_vqa": "multiple_choice:read_omnimed_vqa",
    "iu_xray": "iu_xray:read",
    "mimic_cxr": "mimic_cxr:read",
    "vgmed": "vgmed:read",
    "mmedpo": "preferences:read_mmedpo",
    "rrpo": "preferences:read_rrpo",
    "trl": "preferences:read_trl",
    "llava": "llava:read",
    "hub": "hub:read",
}
"""Source -> file in this folder and function in it, imported when it is first used."""
