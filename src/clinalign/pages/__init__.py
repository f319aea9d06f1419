"""Outcomes, pairs and metrics into one self-contained HTML page, and the short table of the terminal."""

from clinalign.pages.cards import shown_examples
from clinalign.pages.caveats import print_caveats
from clinalign.pages.headline import print_table
from clinalign.pages.report import write_report

__all__ = ["print_caveats", "print_table", "shown_examples", "write_report"]
