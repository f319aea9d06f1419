"""Seeded hostile inputs by kind, and the guarded process that they are given to."""
