"""The report's renderings: pure functions of a :class:`data_specs.visit.report.Report`, one module a format."""
