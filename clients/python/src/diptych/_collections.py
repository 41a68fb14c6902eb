"""Collections, operations, and what is done to records beside storing and finding them.

Owns their requests, built once for both clients, and their answers as frozen dataclasses. Deliberately absent: sending,
searches and the records themselves.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from . import _facets
from ._attributes import AttributeInput, to_wire
from ._errors import DiptychError, from_code
from ._facets import FacetCounts, FacetLike
from ._filter import FilterLike, filter_to_wire
from ._proto.diptych.v1 import collections_pb2 as cpb
from ._proto.diptych.v1 import operations_pb2 as opb
from ._proto.diptych.v1 import retrieval_pb2 as pb

AttributeType = Literal["string", "list", "integer", "float", "bool", "time"]
"""The type of an attribute."""

_TYPES: dict[str, cpb.AttributeType.ValueType] = {
    "string": cpb.ATTRIBUTE_TYPE_STRING,
    "list": cpb.ATTRIBUTE_TYPE_LIST,
    "integer": cpb.ATTRIBUTE_TYPE_INTEGER,
    "float": cpb.ATTRIBUTE_TYPE_FLOAT,
    "bool": cpb.ATTRIBUTE_TYPE_BOOL,
    "time": cpb.ATTRIBUTE_TYPE_TIME,
}
_TYPE_NAMES = {value: name for name, value in _TYPES.items()}

# How long one question for an operation waits at the server for its end, in seconds.
_PATIENCE = 1.0
_PAGE = 1000


@dataclass(frozen=True)
class Count:
    """A number of records; the notes say why a condition meets none, such as a name that no record has."""

    records: int
    notes: tuple[str, ...]
    facets: tuple[FacetCounts, ...] = ()
    """The values of attributes over the same records, as many as were asked for, in their order."""

    def __int__(self) -> int:
        return self.records


@dataclass(frozen=True)
class Collection:
    """What a collection is."""

    name: str
    types: Mapping[str, str]
    """The types of its records' attributes, by name; a record need not have them all."""
    closed: bool
    """Whether records with other attributes are refused."""
    model_id: str
    dimension: int
    created: datetime | None
    """In UTC; None when it is older than such notes."""
    records: int
    image_points: int
    text_points: int
    truncated_texts: int


@dataclass(frozen=True)
class Operation:
    """Work that goes on after its request was answered."""

    name: str
    kind: str
    """What it does, such as "delete_records" or "rebuild_index"."""
    collection: str
    done: bool
    completed: int
    """Records or points dealt with."""
    total: int
    """Records or points to deal with; 0 until they are counted."""
    error: DiptychError | None
    """Why it ended before it was through; None while it runs and when it ended well."""
    deleted_records: int
    indexed_points: int
    started: datetime | None
    ended: datetime | None
    """None while it runs."""

    def raise_for_error(self) -> Operation:
        """Itself, unless it ended before it was through; raises the error then."""
        if self.error is not None:
            raise self.error
        return self


@dataclass(frozen=True)
class Deletion:
    """A deletion that was begun."""

    matching_records: int
    """Records that met the condition when the request came."""
    operation: Operation | None
    """What deletes them, done already when they are few; None for a dry run."""
    notes: tuple[str, ...]


def update_request(
    collection: str,
    key: str,
    set: Mapping[str, AttributeInput] | None,
    unset: Sequence[str],
    replace: bool,
    request_id: str | None,
) -> pb.UpdateRecordRequest:
    """The request to change attributes. Repeated it is done once, so it has an id in any case."""
    if isinstance(unset, str):
        raise TypeError("unset is a sequence; write unset=[...], also for one")
    if replace and unset:
        raise ValueError("replace deletes all attributes that are not set; leave unset out")
    values = dict(set or {})
    record = pb.Record(key=key, attributes={name: to_wire(value) for name, value in values.items()})
    paths = ["attributes"] if replace else [f"attributes.{name}" for name in (*values, *unset)]
    return pb.UpdateRecordRequest(
        collection=collection,
        record=record,
        update_mask=FieldMask(paths=paths),
        request_id=request_id or fresh_request_id(),
    )


def count_request(
    collection: str, filter: FilterLike | None, facets: Sequence[FacetLike] | None
) -> pb.CountRecordsRequest:
    """The request for a number of records."""
    wire = None if filter is None else filter_to_wire(filter)
    return pb.CountRecordsRequest(collection=collection, filter=wire, facets=_facets.to_wire(facets))


def delete_request(
    collection: str, filter: FilterLike, dry_run: bool, request_id: str | None
) -> pb.DeleteRecordsRequest:
    """The request to delete what meets a condition."""
    return pb.DeleteRecordsRequest(
        collection=collection,
        filter=filter_to_wire(filter),
        dry_run=dry_run,
        request_id=request_id or fresh_request_id(),
    )


def create_request(name: str, types: Mapping[str, AttributeType] | None, closed: bool) -> cpb.CreateCollectionRequest:
    """The request for a new collection."""
    for attribute, each in (types or {}).items():
        if each not in _TYPES:
            raise ValueError(f"there is no type {each!r} for {attribute!r}; use one of {', '.join(_TYPES)}")
    schema = cpb.AttributeSchema(types={name: _TYPES[each] for name, each in (types or {}).items()}, closed=closed)
    return cpb.CreateCollectionRequest(name=name, schema=schema)


def collections_request(page_token: str) -> cpb.ListCollectionsRequest:
    """The request for a page of collections."""
    return cpb.ListCollectionsRequest(page_size=_PAGE, page_token=page_token)


def operation_request(operation: str | Operation, wait: float) -> opb.GetOperationRequest:
    """The request for an operation at its end, or as it is after so many seconds."""
    return opb.GetOperationRequest(name=operation_name(operation), wait_millis=int(1000 * wait))


def operation_name(operation: str | Operation) -> str:
    """The name of an operation that may be given itself."""
    return operation if isinstance(operation, str) else operation.name


def patience(left: float | None) -> float:
    """Seconds to wait at the server, of those that are left: an answer that waits has to arrive in time."""
    return _PATIENCE if left is None else max(0.0, min(_PATIENCE, left / 2))


def fresh_request_id() -> str:
    """An id that no other request has."""
    return uuid.uuid4().hex


def count(response: pb.CountRecordsResponse) -> Count:
    """The answer of CountRecords."""
    return Count(response.records, tuple(response.notes), _facets.from_wire(response.facets))


def deletion(response: pb.DeleteRecordsResponse) -> Deletion:
    """The answer of DeleteRecords."""
    begun = operation(response.operation) if response.HasField("operation") else None
    return Deletion(response.matching_records, begun, tuple(response.notes))


def collection(message: cpb.Collection) -> Collection:
    """A collection."""
    return Collection(
        name=message.name,
        types={name: _TYPE_NAMES.get(each, "unknown") for name, each in sorted(message.schema.types.items())},
        closed=message.schema.closed,
        model_id=message.model_id,
        dimension=message.dimension,
        created=_moment(message.create_time) if message.HasField("create_time") else None,
        records=message.records,
        image_points=message.image_points,
        text_points=message.text_points,
        truncated_texts=message.truncated_texts,
    )


def operation(message: opb.Operation) -> Operation:
    """An operation."""
    failed = message.HasField("error")
    return Operation(
        name=message.name,
        kind=_kind(message.kind),
        collection=message.collection,
        done=message.done,
        completed=message.progress.completed,
        total=message.progress.total,
        error=from_code(message.error.code, message.error.message) if failed else None,
        deleted_records=message.result.deleted_records,
        indexed_points=message.result.indexed_points,
        started=_moment(message.start_time) if message.HasField("start_time") else None,
        ended=_moment(message.end_time) if message.HasField("end_time") else None,
    )


def _kind(kind: opb.OperationKind.ValueType) -> str:
    # A kind that is younger than this client has no name here.
    known = opb.OperationKind.DESCRIPTOR.values_by_number.get(kind)
    return "unknown" if known is None else known.name.removeprefix("OPERATION_KIND_").lower()


def _moment(time: Timestamp) -> datetime:
    return time.ToDatetime(timezone.utc)
