"""Visits across borders without names: exported as a package, imported at the other end, answered, and the answers taken home."""
