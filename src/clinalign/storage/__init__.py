"""The ground under every package: atomic files, keys, tables of records, the journal, the quarantine, locks, caches.

Tensors on disk lie in `storage.tensors`, which alone needs torch.
"""

from clinalign.storage.atomic import atomic, atomic_folder, remove_parts, set_aside, write_json, write_text
from clinalign.storage.journal import Journal
from clinalign.storage.keys import (
    cache_folder,
    canonical,
    content_key,
    file_hash,
    first_changed,
    key_of,
    key_with_rows,
    named_files,
    read_manifest,
    sha256,
    shared_folder,
    texts,
    write_manifest,
)
from clinalign.storage.lock import Lock, read_state
from clinalign.storage.quarantine import Quarantine
from clinalign.storage.rows import Mapped, Rows, by_id
from clinalign.storage.tables import BATCH_ROWS, from_row, iter_table, open_table, read_table, to_row, write_table
from clinalign.storage.text import (
    damage,
    filled_lines,
    is_file,
    open_text,
    parse_json,
    read_text,
    user_path,
    whole_lines,
)

__all__ = [
    "BATCH_ROWS",
    "Journal",
    "Lock",
    "Mapped",
    "Quarantine",
    "Rows",
    "atomic",
    "atomic_folder",
    "by_id",
    "cache_folder",
    "canonical",
    "content_key",
    "damage",
    "file_hash",
    "filled_lines",
    "first_changed",
    "from_row",
    "is_file",
    "iter_table",
    "key_of",
    "key_with_rows",
    "named_files",
    "open_table",
    "open_text",
    "parse_json",
    "read_manifest",
    "read_state",
    "read_table",
    "read_text",
    "remove_parts",
    "set_aside",
    "sha256",
    "shared_folder",
    "texts",
    "to_row",
    "user_path",
    "whole_lines",
    "write_json",
    "write_manifest",
    "write_table",
    "write_text",
]
