"""Every source by the name that a recipe uses, one file a source (kin share one): the literal of `data.source` is made
of this table. An own reader is named by its dotted path, `my.module:reader`, and needs no entry.

A reader is a function of (options, run folder, quarantine) that gives examples; most of them give rows under our column
names to `data.ingest.ingest`, which does the rest.
"""

READERS = {
    "phantom": "phantom.dataset:read",
    "phantom2": "phantom.bench:read",
    "phantom_fundus": "phantom.fundus_questions:read",
    "phantom_volume": "phantom.volume_questions:read",
    "table": "sources.table:read_table",
    "real": "sources.real:read",
    "slake": "sources.slake:read",
    "vqa_rad": "sources.vqa:read_vqa_rad",
    "path_vqa": "sources.vqa:read_path_vqa",
    "pmc_vqa": "sources.multiple_choice:read_pmc_vqa",
    "omnimed_vqa": "sources.multiple_choice:read_omnimed_vqa",
    "eh": "sources.eh:read",
    "iu_xray": "sources.iu_xray:read",
    "mimic_cxr": "sources.mimic_cxr:read",
    "vgmed": "sources.vgmed:read",
    "hallucinogen": "sources.hallucinogen:read",
    "s_chain": "sources.s_chain:read",
    "mimic_labels": "sources.text_vision:read",
    "dementia": "sources.text_vision:read",
    "mmedpo": "sources.conversations:read_mmedpo",
    "rrpo": "sources.conversations:read_rrpo",
    "trl": "sources.conversations:read_trl",
    "llava": "sources.conversations:read_llava",
    "hub": "sources.table:read_hub",
}
"""Source -> file below `data/` and function in it, imported when it is first used."""
