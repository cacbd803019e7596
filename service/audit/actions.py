"""The actions of the audit log, each with its code and kind for FHIR.

References
----------
DICOM PS3.16, CID 400 (Audit Event ID) and PS3.15, A.5.3 (audit messages): codes of the system ``DCM``. FHIR R4, value
set audit-event-action: create, read, update, delete, execute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Kind = Literal["C", "R", "U", "D", "E"]


class Action(NamedTuple):
    """What an action is for FHIR: ``code`` of ``DCM``, and whether something is created, read, updated, deleted or
    carried out."""

    code: str
    kind: Kind


DCM: Mapping[str, str] = {
    "110100": "Application Activity",
    "110101": "Audit Log Used",
    "110103": "DICOM Instances Accessed",
    "110104": "DICOM Instances Transferred",
    "110106": "Export",
    "110107": "Import",
    "110109": "Order Record",
    "110110": "Patient Record",
    "110111": "Procedure Record",
    "110112": "Query",
    "110113": "Security Alert",
    "110114": "User Authentication",
}
"""Codes that are used, with their meanings."""

ACTIONS: Mapping[str, Action] = {
    # looking
    "visit_read": Action("110110", "R"),
    "file_read": Action("110103", "R"),
    "report_read": Action("110110", "R"),
    "list_read": Action("110112", "E"),
    "list_exported": Action("110106", "R"),
    "keys_read": Action("110112", "E"),
    "log_read": Action("110101", "R"),
    "log_exported": Action("110101", "R"),
    # what comes in
    "visit_posted": Action("110107", "C"),
    "visit_received": Action("110107", "C"),
    "file_received": Action("110107", "U"),
    "object_received": Action("110104", "C"),
    "orders_received": Action("110109", "C"),
    "followup_received": Action("110107", "U"),
    # what is done with a visit
    "visit_assessed": Action("110111", "E"),
    "visit_called_normal": Action("110111", "E"),
    "normals_stopped": Action("110113", "U"),
    "opinion_signed": Action("110111", "C"),
    "question_asked": Action("110111", "C"),
    "question_withdrawn": Action("110111", "U"),
    "outcome_recorded": Action("110111", "C"),
    "incident_raised": Action("110113", "C"),
    "incident_closed": Action("110113", "U"),
    "case_given": Action("110110", "R"),
    "case_read": Action("110111", "C"),
    # what goes out, and what is deleted
    "report_delivered": Action("110106", "R"),
    "visit_exported": Action("110106", "R"),
    "cases_exported": Action("110106", "R"),
    "package_exported": Action("110106", "R"),
    "package_imported": Action("110107", "C"),
    "package_answered": Action("110106", "R"),
    "package_taken": Action("110107", "U"),
    "visit_deleted": Action("110110", "D"),
    "rows_deleted": Action("110100", "D"),
    "backup_begun": Action("110106", "R"),
    "backup_restored": Action("110107", "E"),
    # access
    "signed_in": Action("110114", "E"),
    "signed_out": Action("110114", "E"),
    "sign_ins_refused": Action("110114", "E"),
    "sessions_ended": Action("110114", "E"),
    "key_made": Action("110113", "C"),
    "key_renewed": Action("110113", "U"),
    "key_named": Action("110113", "U"),
    "key_changed": Action("110113", "U"),
    "key_revoked": Action("110113", "D"),
    "key_readmitted": Action("110113", "U"),
    # the service
    "destination_made": Action("110100", "C"),
    "destination_ended": Action("110100", "D"),
    "deliveries_retried": Action("110100", "E"),
    "bundle_decided": Action("110100", "U"),
    "alarm_raised": Action("110113", "C"),
    "alarm_ended": Action("110113", "U"),
    "alarm_told": Action("110113", "R"),
    "alarm_silenced": Action("110113", "U"),
    "reference_begun": Action("110100", "U"),
    "release_in_force": Action("110100", "U"),
}
"""Every action by its name."""
OF_ANOTHER_RELEASE = Action("110100", "E")
"""What is said of an action that this release does not know: a later one may have written it."""
