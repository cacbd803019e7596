"""A person's data: found by site and identifier, exported, erased."""
