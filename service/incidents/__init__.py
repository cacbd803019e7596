"""Incidents: raised from a visit, with what the audit log has of it and a deadline; closed with what was found."""
