"""HL7 v2 over MLLP: orders in; :mod:`service.report.hl7` renders results out."""
