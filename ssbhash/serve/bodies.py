"""Bodies of requests and answers: JSON, `.npy` and `.npz`, Arrow.

A request asks about texts, vectors, codes or ids. In JSON they are fields of these names. A
binary body has one array, and the type of the array tells: uint8 [n, n_bytes] are codes, floats
[n, n_features] vectors, int64 [n] ids. All else stands in the query string. An Arrow stream has
one column `text`, `vector`, `code` or `id`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import to_json

from ssbhash.arrays import Codes

JSON = "application/json"
NPY = "application/octet-stream"
ARROW = "application/vnd.apache.arrow.stream"

Id = Annotated[int, Field(ge=0, le=2**63 - 2)] | str
Ids = Annotated[list[Id], Field(min_length=1, description="Ids of items in the index.")]
Hex = Annotated[str, StringConstraints(pattern="^([0-9a-fA-F]{2})+$")]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Items(_Body):
    """Items in one of three forms: give exactly one."""

    texts: list[str] | None = Field(None, min_length=1, description="For a model of texts.")
    vectors: list[list[Number]] | None = Field(
        None, min_length=1, description="For a model of vectors: [n, n_features]."
    )
    codes: list[Hex] | None = Field(
        None, min_length=1, description="Codes, two hexadecimal digits a byte."
    )


class Queries(Items):
    """The queries: exactly one of texts, vectors, codes and ids."""

    ids: Ids | None = None


class Encode(Queries):
    """What to encode."""


class Search(Queries):
    """What to search for."""

    k: int = Field(10, ge=1, description="Neighbours of each query.")
    max_distance: int | None = Field(None, ge=0, description="Bits apart at most.")


class Within(Queries):
    """What to look around."""

    radius: int = Field(ge=0, description="Bits apart at most.")


class Add(Items):
    """What to add."""

    ids: Ids | None = Field(
        None, description="An id of each; without, numbers that follow the largest ever given."
    )


class Chosen(_Body):
    """Items by their ids."""

    ids: Ids


class Remove(Chosen):
    """What to remove."""


class Codings(BaseModel):
    """Codes, and class probabilities by the model."""

    codes: list[str]
    n_bits: int
    classes: list[dict[str, float]] | None = Field(
        None, description="The probability of each class, where a model of classes encoded."
    )


class Neighbours(BaseModel):
    """The neighbours of each query, ascending by (distance, id)."""

    ids: list[list[int | str]]
    distances: list[list[int]]


class Histogram(BaseModel):
    """How many items lie at each distance from a query."""

    counts: list[int] = Field(description="Items at distance 0, 1, ... n_bits.")
    n: int = Field(description="Items counted: all of them, or a sample.")


class Added(BaseModel):
    """Ids of the added items."""

    ids: list[int | str]


class Removed(BaseModel):
    """How many items were removed."""

    n_removed: int


class Item(BaseModel):
    """What is known of an item."""

    id: int | str
    code: str
    text: str | None = None
    label: str | None = None
    thumbnail: str | None = Field(None, description="Address of a picture.")
    classes: dict[str, float] | None = None


class Described(BaseModel):
    """Items with their texts, labels and pictures."""

    items: list[Item]


class Problem(BaseModel):
    """What was wrong with a request."""

    detail: str


@dataclass(frozen=True)
class Asked:
    """What a request asks about; exactly one is present."""

    texts: list[str] | None = None
    vectors: Any = None
    codes: Codes | None = None
    ids: Any = None

    def __len__(self) -> int:
        for part in (self.texts, self.vectors, self.codes, self.ids):
            if part is not None:
                return len(part)
        return 0


class Unreadable(ValueError):
    """A body whose fields or arrays are not those of the request."""


class Malformed(ValueError):
    """A body that is not in the form that its Content-Type says."""


class UnknownType(ValueError):
    """A Content-Type that the service cannot read."""


class UnknownAnswer(ValueError):
    """An Accept without any form that the service can write."""


Model = TypeVar("Model", bound=_Body)


def read(
    model: type[Model], content: bytes, content_type: str, query: Callable[[], Mapping[str, str]]
) -> tuple[Model, Asked]:
    """Read a body of any form; `query` reads the query string, where a form needs it.

    Returns
    -------
    model, asked
        Its options, and what it asks about.

    Raises
    ------
    UnknownType, Malformed, Unreadable
    """
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == JSON:
            body = model.model_validate_json(content)
            return body, _of_json(body)
        options: dict[str, Any] = {
            name: int(value) if value.removeprefix("-").isdecimal() else value
            for name, value in query().items()
            if name not in ("texts", "vectors", "codes", "ids")
        }
        if kind == NPY:
            asked, new_ids = _of_array(read_npy(content)), None
        elif kind == ARROW:
            asked, new_ids = _of_arrow(content, model is Add)
        else:
            raise UnknownType(
                f"the body's Content-Type must be {JSON}, {NPY} or {ARROW}, got {kind!r}"
            )
        if issubclass(model, Chosen):
            options["ids"] = asked.ids
        elif model is Add:
            options["ids"] = new_ids
            if asked.ids is not None:
                raise Unreadable("the array must be codes or vectors, got ids")
        return model.model_validate(options), asked
    except ValidationError as error:
        is_json = all(one["type"] != "json_invalid" for one in error.errors())
        raise (Unreadable if is_json else Malformed)(sentence_of(error)) from error


def _of_json(body: _Body) -> Asked:
    if isinstance(body, Chosen):
        return Asked(ids=body.ids)
    assert isinstance(body, Items)
    ids = body.ids if isinstance(body, Queries) else None
    forms = {"texts": body.texts, "vectors": body.vectors, "codes": body.codes, "ids": ids}
    given = [name for name, value in forms.items() if value is not None]
    if len(given) != 1:
        known = [*forms][: 4 if isinstance(body, Queries) else 3]
        raise Unreadable(
            f"give exactly one of {', '.join(known)}; got {', '.join(given) or 'none'}"
        )
    vectors = None
    if body.vectors is not None:
        if len({len(row) for row in body.vectors}) > 1:
            raise Unreadable("vectors must all have the same length")
        vectors = np.array(body.vectors, np.float64)
    codes = None
    if body.codes is not None:
        if len({len(code) for code in body.codes}) > 1:
            raise Unreadable("codes must all have the same length")
        joined = bytes.fromhex("".join(body.codes))
        codes = np.frombuffer(joined, np.uint8).reshape(len(body.codes), -1)
    return Asked(texts=body.texts, vectors=vectors, codes=codes, ids=ids)


def _of_array(array: npt.NDArray[Any]) -> Asked:
    if array.dtype == np.uint8 and array.ndim == 2:
        return Asked(codes=array)
    if array.dtype.kind == "f" and array.ndim == 2:
        return Asked(vectors=array)
    if array.dtype.kind in "iu" and array.ndim == 1:
        return Asked(ids=array.tolist())
    raise Unreadable(
        "the array must be codes uint8 [n, n_bytes], vectors float [n, n_features] or ids "
        f"int64 [n], got {array.dtype} {list(array.shape)}"
    )


def read_npy(content: bytes) -> npt.NDArray[Any]:
    """Read a `.npy` file without copying it; never unpickles.

    Raises
    ------
    Malformed, Unreadable
    """
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        reader = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, is_fortran, dtype = reader(file)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise Malformed(f"the body is no .npy file: {error}") from error
    n_entries = 1
    for length in shape:
        n_entries *= int(length)
    n_bytes = len(content) - file.tell()
    if dtype.hasobject or dtype.itemsize == 0 or min(shape, default=0) < 0:
        raise Unreadable(f"the body must be an array of numbers, got {dtype} {list(shape)}")
    if n_entries * dtype.itemsize != n_bytes or n_entries == 0:
        raise Malformed(f"the body has {n_bytes} bytes for an array {dtype} {list(shape)}")
    flat = np.frombuffer(content, dtype, n_entries, file.tell())
    return flat.reshape(shape, order="F" if is_fortran else "C")


def _of_arrow(content: bytes, may_have_ids: bool) -> tuple[Asked, list[Any] | None]:
    """Read an Arrow stream: what is asked about and, to be added, an id of each row."""
    pa = _pyarrow()
    try:
        with pa.ipc.open_stream(content) as stream:
            table = stream.read_all()
        table.validate(full=True)
        columns = {name: table.column(name).combine_chunks() for name in table.column_names}
        new_ids = columns.pop("id").to_pylist() if may_have_ids and "id" in columns else None
        if (
            len(columns) == 1
            and table.num_rows > 0
            and not any(column.null_count for column in columns.values())
        ):
            ((name, column),) = columns.items()
            asked = _of_column(pa.types, name, column)
            if asked is not None:
                return asked, new_ids
    except (pa.ArrowException, ValueError, TypeError, KeyError, OSError) as error:
        raise Malformed(f"the body is no Arrow stream that can be read: {error}") from error
    found = ", ".join(f"{field.name} {field.type}" for field in table.schema)
    raise Unreadable(
        "the stream must have rows, without nulls, of one column: text, vector (lists of one length), "
        f"code (binary of one length) or id; got {table.num_rows} rows of {found or 'nothing'}"
    )


def _of_column(types: Any, name: str, column: Any) -> Asked | None:
    kind = column.type
    if name == "text" and (types.is_string(kind) or types.is_large_string(kind)):
        return Asked(texts=column.to_pylist())
    if name == "id" and (types.is_integer(kind) or types.is_string(kind)):
        return Asked(ids=column.to_pylist())
    if name == "code" and (types.is_binary(kind) or types.is_fixed_size_binary(kind)):
        rows = column.to_pylist()
        if len(rows[0]) > 0 and len({len(row) for row in rows}) == 1:
            return Asked(codes=np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1))
    if name == "vector" and (types.is_list(kind) or types.is_fixed_size_list(kind)):
        flat = column.flatten()
        is_even = len(set(column.value_lengths().to_pylist())) == 1 if types.is_list(kind) else True
        if is_even and len(flat) > 0 and not flat.null_count and types.is_floating(flat.type):
            return Asked(vectors=flat.to_numpy(zero_copy_only=False).reshape(len(column), -1))
    return None


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ModuleNotFoundError:
        raise UnknownType(f"{ARROW} needs pyarrow on the server") from None
    return pyarrow


def sentence_of(error: ValidationError) -> str:
    """Say which fields are wrong, in one line."""
    parts = []
    for one in error.errors(include_url=False, include_context=False, include_input=False)[:3]:
        place = ".".join(str(part) for part in one["loc"])
        parts.append(f"{place}: {one['msg']}" if place else str(one["msg"]))
    return "; ".join(parts)


def wanted_form(accept: str, forms: Sequence[str]) -> str:
    """Choose the one of `forms` that a client accepts first; JSON is always one.

    Raises
    ------
    UnknownAnswer
    """
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    for kind in kinds:
        if kind in ("", "*/*", "application/*"):
            return JSON
        if kind in forms and (kind != ARROW or find_spec("pyarrow") is not None):
            return kind
    raise UnknownAnswer(f"answers are {', '.join(forms)}; Accept is {accept!r}")


def write(form: str, lists: Mapping[str, Sequence[npt.NDArray[Any]]]) -> bytes:
    """Write an answer: of each name, an array for each query.

    JSON has lists of lists, Arrow a row for each query. `.npz` has `lims`, where the part of
    each query begins, and all parts behind one another.
    """
    if form == JSON:
        return to_json({name: [part.tolist() for part in parts] for name, parts in lists.items()})
    lengths = [len(part) for part in next(iter(lists.values()))]
    lims = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    joined = {name: _joined(parts) for name, parts in lists.items()}
    if form == NPY:
        file = io.BytesIO()
        np.savez(file, **{"lims": lims, **joined})  # type: ignore[arg-type]
        return file.getvalue()
    import pyarrow as pa

    table = pa.table(
        {name: pa.LargeListArray.from_arrays(lims, pa.array(flat)) for name, flat in joined.items()}
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def _joined(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    flat = np.concatenate(parts)
    return flat.astype(str) if flat.dtype == object else flat
