"""Incidents: raised from a visit, with what the audit log has of it; a deadline by a table; closed with what was found."""
