"""A visit's report: made and stored (``issue``), then written in any format (``render`` and one module a format)."""
