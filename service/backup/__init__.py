"""Save the data of a running service into a folder, check what was saved, and restore it."""
