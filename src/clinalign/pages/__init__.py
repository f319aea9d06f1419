"""Outcomes, pairs and metrics into one self-contained HTML page, and the short table of the terminal."""

from clinalign.pages.provenance import print_caveats
from clinalign.pages.report import write_report
from clinalign.pages.results import print_table

__all__ = ["print_caveats", "print_table", "write_report"]
