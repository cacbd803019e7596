"""Visits across borders without names: exported, imported at the other end, answered, and the answers taken home."""
