"""Requests and answers of the Open Inference Protocol, as bytes.

Small tensors are part of the JSON. The binary extension appends any tensor after the JSON, and it is read without a
copy. A refusal names the member of the JSON that cannot be used.

References
----------
Open Inference Protocol v2, "HTTP/REST" and "Tensor Data Types"; its binary tensor data extension.
In JSON, ``NaN`` and ``Infinity`` are written as Triton writes them; JSON itself has no such values (RFC 8259,
section 6).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from service.errors import BodyTooLarge, FieldFault, InvalidRequest, QueueFull
from service.places import Shares

Array = NDArray[np.generic]
DATATYPES: dict[str, np.dtype[Any]] = {
    "UINT8": np.dtype("uint8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
MAX_JSON_BYTES = 4_000_000
"""Parsing JSON blocks the interpreter, a tenth of a second for this much. A larger tensor has to be binary."""
MAX_ID = 200
RETRY_AFTER_S = 5
FINITE = "-∞ < x < ∞"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor of a model; ``shape`` is that of one row, without the number of rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def metadata(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": [-1, *self.shape]}


@dataclass(frozen=True, slots=True)
class InputSpec(TensorSpec):
    """``unknown``: whether NaN stands for a value that is not known (laboratory values)."""

    unknown: bool = False


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request: ``rows`` has the shape ``(n, *shape)``; ``outputs`` are the names asked for, and whether as binary."""

    id: str | None
    rows: Array
    outputs: tuple[tuple[str, bool], ...]


class Tensors:
    """Tensor requests that this process works on, with limits: beyond them a request is refused and does not wait.

    Parameters
    ----------
    max_rows, max_bytes
        Rows that are not answered yet, and bytes of their bodies; a key may hold its share of both. A request may have
        more than ``max_rows`` if no other is worked on.

    Attributes
    ----------
    outputs
        Output tensors by the hash of a bundle's weights, once they are known.
    """

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self.rows, self.n_bytes = Shares(max_rows), Shares(max_bytes)
        self.outputs: dict[str, tuple[TensorSpec, ...]] = {}

    def hold_rows(self, key_id: str, n: int) -> AbstractContextManager[None]:
        """Count a request's rows while they are worked on.

        Raises
        ------
        QueueFull
        """
        return _held(self.rows, key_id, min(n, self._max_rows))  # so that a longer request passes where it is alone

    def hold_bytes(self, key_id: str, n: int) -> AbstractContextManager[None]:
        """Count the bytes of a request's body, as :meth:`hold_rows` does its rows."""
        return _held(self.n_bytes, key_id, n)


@contextmanager
def _held(shares: Shares, key_id: str, n: int) -> Iterator[None]:
    if not shares.fits(key_id, n):
        raise QueueFull("", f"{RETRY_AFTER_S} s", retry_after_s=RETRY_AFTER_S)
    shares.take(key_id, n)
    try:
        yield
    finally:
        shares.give(key_id, n)


def read_request(
    body: memoryview, n_json: int | None, spec: InputSpec, outputs: Sequence[str], max_rows: int
) -> InferRequest:
    """The request in ``body``.

    Parameters
    ----------
    n_json
        Length of the JSON before the binary tensors; ``None``: the whole body is JSON.
    outputs
        Names of the model's outputs; a request that asks for none gets all.

    Raises
    ------
    BodyTooLarge, InvalidRequest
    """
    if n_json is not None and n_json > len(body):
        raise _malformed("Inference-Header-Content-Length", f"≤ {len(body)}")
    document, binary = body[:n_json], body[len(body) if n_json is None else n_json :]
    if len(document) > MAX_JSON_BYTES:
        raise BodyTooLarge("", f"{MAX_JSON_BYTES // 1_000_000} MB JSON (binary_data_size: ∞)")
    try:
        asked = from_json(bytes(document))
    except ValueError:
        raise InvalidRequest(FieldFault("body", "body_malformed", "JSON")) from None
    asked = _member(asked, "body", dict)
    request_id = asked.get("id")
    if request_id is not None and (not isinstance(request_id, str) or len(request_id) > MAX_ID):
        raise _malformed("id", f"≤ {MAX_ID} × U+")
    inputs = _member(asked.get("inputs"), "inputs", list)
    if len(inputs) != 1:
        raise _malformed("inputs", "1")
    rows = _rows(_member(inputs[0], "inputs.0", dict), binary, spec, max_rows)
    by_default = _parameters(asked, "parameters").get("binary_data_output", False) is True
    return InferRequest(request_id, rows, _wanted(asked.get("outputs"), outputs, by_default))


def _rows(given: Mapping[str, Any], binary: memoryview, spec: InputSpec, max_rows: int) -> Array:
    if given.get("name") != spec.name:
        raise _malformed("inputs.0.name", spec.name)
    if given.get("datatype") != spec.datatype:
        raise _malformed("inputs.0.datatype", spec.datatype)
    shape = given.get("shape")
    at_most = f"[1 … {max_rows}, {', '.join(map(str, spec.shape))}]"
    if (
        not isinstance(shape, list)
        or not all(type(size) is int for size in shape)
        or tuple(shape[1:]) != spec.shape
        or not 1 <= shape[0] <= max_rows
    ):
        raise _malformed("inputs.0.shape", at_most)
    parameters = _parameters(given, "inputs.0.parameters")
    dtype = DATATYPES[spec.datatype]
    n_values = int(np.prod(shape, dtype=np.int64))
    if "binary_data_size" in parameters:
        if type(parameters["binary_data_size"]) is not int or "data" in given:
            raise _malformed("inputs.0.parameters.binary_data_size", str(n_values * dtype.itemsize))
        if parameters["binary_data_size"] != n_values * dtype.itemsize or len(binary) != n_values * dtype.itemsize:
            raise _malformed("inputs.0.parameters.binary_data_size", str(n_values * dtype.itemsize))
        rows: Array = np.require(np.frombuffer(binary, dtype), requirements="A").reshape(shape)
    else:
        if len(binary):
            raise _malformed("Inference-Header-Content-Length", "binary_data_size")
        rows = _from_json(given.get("data"), dtype, n_values).reshape(shape)
    if rows.dtype.kind == "f":
        finite = ~np.isinf(rows) if spec.unknown else np.isfinite(rows)
        if not finite.all():
            raise _malformed("inputs.0.data", f"{FINITE}, NaN" if spec.unknown else FINITE)
    return rows


def _from_json(data: object, dtype: np.dtype[Any], n_values: int) -> Array:
    """Numbers, flat or nested, in row-major order."""
    expected = f"{n_values} × {dtype.name}"
    try:
        values = np.array(_member(data, "inputs.0.data", list))
    except (ValueError, OverflowError):  # ragged
        raise _malformed("inputs.0.data", expected) from None
    if values.size != n_values or values.dtype.kind not in ("iuf" if dtype.kind == "f" else "iu"):
        raise _malformed("inputs.0.data", expected)
    if dtype.kind == "u" and (values.min() < 0 or values.max() > np.iinfo(dtype).max):
        raise _malformed("inputs.0.data", f"0 … {np.iinfo(dtype).max}")
    with np.errstate(over="ignore"):  # a value out of range becomes infinite, which is refused
        cast: Array = values.astype(dtype)
    return cast


def _wanted(given: object, known: Sequence[str], by_default: bool) -> tuple[tuple[str, bool], ...]:
    if given is None or given == []:
        return tuple((name, by_default) for name in known)
    wanted: dict[str, bool] = {}
    for index, item in enumerate(_member(given, "outputs", list)[: len(known) + 1]):
        path = f"outputs.{index}"
        output = _member(item, path, dict)
        name = output.get("name")
        if name not in known:
            raise _malformed(f"{path}.name", ", ".join(known))
        if name in wanted:
            raise InvalidRequest(FieldFault(f"{path}.name", "field_repeated"))
        wanted[name] = _parameters(output, f"{path}.parameters").get("binary_data", by_default) is True
    return tuple(wanted.items())


def _parameters(given: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Parameters; those that ask for a feature that is not offered are refused, unknown ones are ignored."""
    parameters: dict[str, Any] = _member(given.get("parameters", {}), path, dict)
    for name in ("shared_memory_region", "classification"):
        if name in parameters:
            raise InvalidRequest(FieldFault(f"{path}.{name}", "field_unknown"))
    return parameters


def _member(value: object, path: str, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise _malformed(path, "{…}" if kind is dict else "[…]")
    return value


def _malformed(path: str, expected: str) -> InvalidRequest:
    return InvalidRequest(FieldFault(path, "field_invalid", expected))


def write_answer(
    model: Mapping[str, str], asked: InferRequest, names: Sequence[str], results: Sequence[Array]
) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON if binary tensors follow it.

    Parameters
    ----------
    names, results
        All outputs of the model.
    """
    by_name = dict(zip(names, results, strict=True))
    outputs: list[dict[str, Any]] = []
    binary: list[bytes | memoryview] = []
    for name, as_binary in asked.outputs:
        values = np.ascontiguousarray(by_name[name])
        output: dict[str, Any] = {"name": name, "datatype": datatype_of(values), "shape": list(values.shape)}
        if as_binary:
            output["parameters"] = {"binary_data_size": values.nbytes}
            binary.append(values.data.cast("B"))
        else:
            output["data"] = values.ravel().tolist()
        outputs.append(output)
    answer = {**model, **({} if asked.id is None else {"id": asked.id}), "outputs": outputs}
    head = json.dumps(answer, separators=(",", ":")).encode()
    return (b"".join([head, *binary]), len(head)) if binary else (head, None)


def datatype_of(values: Array) -> str:
    return next(name for name, dtype in DATATYPES.items() if dtype == values.dtype)
