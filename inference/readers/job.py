"""What readers do: functions of the contents of files, whose results can be told in JSON and plain arrays."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

Array = NDArray[np.generic]
P = ParamSpec("P")
T = TypeVar("T")
SHARED_BYTES = 8 << 20
"""Most that the arrays of a result may have together: six windows of a recording have 0.3 MB. Memory is taken as it is
written."""
LARGE_BYTES = 192 << 20
"""The same for a picture: a PNG of 10,000 x 10,000 noisy pixels has 100 MB."""


@dataclass(frozen=True, slots=True)
class Read(Generic[T]):
    """What a reader made of its files: a document, and arrays."""

    document: T
    arrays: tuple[Array, ...] = ()


class Job(Generic[P, T]):
    """A function for reader processes; it is pickled by its name.

    Parameters
    ----------
    function
        Gets the contents of the files, then other arguments. Its module is one of
        :data:`inference.readers.loading.JOBS`, because a reader cannot import.
    shared_bytes
        Most that the arrays of its result may have together.
    """

    def __init__(
        self, function: Callable[Concatenate[Sequence[bytes], P], Read[T]], shared_bytes: int = SHARED_BYTES
    ) -> None:
        self.function, self.shared_bytes = function, shared_bytes
        self.__module__, self.__doc__ = function.__module__, function.__doc__
        (document,) = get_args(get_type_hints(function)["return"])
        self._adapter: TypeAdapter[T] = TypeAdapter(document)

    def __reduce__(self) -> str:
        return self.name

    def __call__(self, files: Sequence[bytes], *args: P.args, **kwargs: P.kwargs) -> Read[T]:
        return self.function(files, *args, **kwargs)

    @property
    def name(self) -> str:
        return self.function.__qualname__

    def dump(self, document: T) -> Any:
        """The document as JSON values."""
        return self._adapter.dump_python(document, mode="json")

    def load(self, document: Any) -> T:
        """The document of JSON values.

        Raises
        ------
        ValueError
            It is of another type.
        """
        return self._adapter.validate_json(json.dumps(document))


def job(function: Callable[Concatenate[Sequence[bytes], P], Read[T]]) -> Job[P, T]:
    """Make a function a :class:`Job`."""
    return Job(function)


def large_job(function: Callable[Concatenate[Sequence[bytes], P], Read[T]]) -> Job[P, T]:
    """Make a function a :class:`Job` whose result may be large."""
    return Job(function, LARGE_BYTES)
