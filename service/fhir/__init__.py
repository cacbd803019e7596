"""FHIR in: an order with its patient as the context of a visit; :mod:`service.report.fhir` renders documents out."""
