"""The report's renderings: pure functions of a :class:`data_specs.report.Report`, one module a format."""
