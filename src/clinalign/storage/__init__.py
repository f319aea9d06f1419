"""The ground under every package: atomic files, tables of records, the journal, the quarantine, the cache folder.

Tensors on disk lie in `storage.tensors`, which alone needs torch.
"""

from clinalign.storage.atomic import atomic, sha256, write_json, write_text
from clinalign.storage.cache import cache_folder, shared_folder
from clinalign.storage.journal import Journal
from clinalign.storage.quarantine import Quarantine
from clinalign.storage.tables import BATCH_ROWS, from_row, iter_table, read_table, to_row, write_table
from clinalign.storage.text import damage, filled_lines, is_file, open_text, parse_json, read_text, user_path

__all__ = [
    "BATCH_ROWS",
    "Journal",
    "Quarantine",
    "atomic",
    "cache_folder",
    "damage",
    "from_row",
    "is_file",
    "iter_table",
    "filled_lines",
    "open_text",
    "parse_json",
    "read_table",
    "read_text",
    "sha256",
    "shared_folder",
    "to_row",
    "user_path",
    "write_json",
    "write_table",
    "write_text",
]
