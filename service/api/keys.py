"""``/v1/keys``: access keys, for admins."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from data_specs.visit.teaching import teaches
from service import errors
from service.api.refusals import problem_responses
from service.api.session import AdminKey
from service.faults import BETWEEN
from service.keys import MAX_DOCTOR_ID, MAX_LABEL, PERSONS, Role, SiteName
from service.sites import with_key
from service.state import service_of
from service.storage.tables import KeyRow

router = APIRouter(
    prefix="/v1/keys",
    tags=["keys"],
    responses=problem_responses(errors.Unauthorised, errors.Forbidden, errors.InvalidRequest, errors.InternalFault),
)

DoctorId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_DOCTOR_ID, pattern=r"^[^\x00-\x1f]*$")]


class NewKey(BaseModel):
    """A new key. ``doctor_id`` is the ``referrer.id`` whose visits a doctor's key shows, or a specialist's own
    identifier; ``label`` is the person's name, with which they sign."""

    model_config = ConfigDict(extra="forbid")

    role: Role
    site: SiteName
    doctor_id: DoctorId | None = None
    label: Annotated[str, Field(max_length=MAX_LABEL, pattern=r"^[^\x00-\x1f]*$")] = ""

    @model_validator(mode="after")
    def _doctor_is_named(self) -> NewKey:
        if teaches(self.site) and self.role != "doctor":
            raise PydanticCustomError("literal_error", "nothing is posted there", {"expected": "role: doctor"})
        is_person = self.role in PERSONS
        if is_person and self.doctor_id is None:
            raise PydanticCustomError("member_missing", "a doctor's key needs it", {"member": "doctor_id"})
        if not is_person and self.doctor_id is not None:
            only = {"member": "doctor_id", "expected": f"role: {BETWEEN.join(PERSONS)}"}
            raise PydanticCustomError("member_stray", "it belongs to a doctor's key", only)
        return self


class KeyView(BaseModel):
    """A key, without its secret. ``by_provider``: its owner signs in by the OpenID provider, and there is no secret."""

    id: str
    role: Role
    site: str
    doctor_id: str | None
    label: str
    created_at: datetime
    revoked_at: datetime | None
    by_provider: bool


class CreatedKey(KeyView):
    """A new key. ``key`` is shown this one time; only its hash is stored. ``site_is_new``: nobody else has a key for
    this site, so look whether its name is written as elsewhere."""

    key: str
    site_is_new: bool = False


class KeyList(BaseModel):
    items: list[KeyView]


def _view(row: KeyRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in KeyView.model_fields}


@router.post("", status_code=201)
async def create_key(request: Request, _: AdminKey, asked: NewKey) -> CreatedKey:
    """Make a key for a site, a doctor, a specialist or an admin."""
    service = service_of(request)
    known = await service.database.read(with_key)
    row, secret = await service.keys.create(asked.role, asked.site, asked.doctor_id, asked.label)
    return CreatedKey.model_validate({**_view(row), "key": secret, "site_is_new": asked.site not in known})


@router.get("")
async def list_keys(request: Request, _: AdminKey) -> KeyList:
    """All keys, also the revoked ones and persons who sign in by the provider, oldest first."""
    return KeyList.model_validate({"items": [_view(row) for row in await service_of(request).keys.list()]})


@router.post("/{key_id}/rotate", responses=problem_responses(errors.NotFound, errors.KeyOfProvider))
async def rotate_key(request: Request, _: AdminKey, key_id: Annotated[str, Path(max_length=36)]) -> CreatedKey:
    """A new secret for the same key and person; the old one, and all its sessions, become invalid."""
    row, secret = await service_of(request).keys.rotate(key_id)
    return CreatedKey.model_validate({**_view(row), "key": secret})


@router.delete("/{key_id}", status_code=204, responses=problem_responses(errors.NotFound))
async def revoke_key(request: Request, _: AdminKey, key_id: Annotated[str, Path(max_length=36)]) -> Response:
    """Make a key, and all sessions that were opened with it, invalid."""
    await service_of(request).keys.revoke(key_id)
    return Response(status_code=204)


@router.post("/{key_id}/readmit", status_code=204, responses=problem_responses(errors.NotFound))
async def readmit_person(request: Request, _: AdminKey, key_id: Annotated[str, Path(max_length=36)]) -> Response:
    """Let a person who signs in by the provider and was revoked sign in again."""
    await service_of(request).keys.readmit(key_id)
    return Response(status_code=204)
