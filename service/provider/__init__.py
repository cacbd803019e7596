"""Signing in by the hospital's OpenID provider: what it says of itself, what it says of a person, and the role here."""
