"""The ground under every package: atomic files, tables of records, the journal, the quarantine, the cache folder.

Tensors on disk lie in `storage.tensors`, which alone needs torch.
"""

from clinalign.storage.atomic import atomic, sha256, write_json, write_text
from clinalign.storage.cache import cache_folder, shared_folder
from clinalign.storage.journal import Journal
from clinalign.storage.quarantine import Quarantine
from clinalign.storage.tables import BATCH_ROWS, from_row, iter_table, read_table, to_row, write_table

__all__ = [
    "BATCH_ROWS",
    "Journal",
    "Quarantine",
    "atomic",
    "cache_folder",
    "from_row",
    "iter_table",
    "read_table",
    "sha256",
    "shared_folder",
    "to_row",
    "write_json",
    "write_table",
    "write_text",
]
