"""Client of Diptych: text finds images, images find text.

Owns the names that users import. Deliberately absent: everything else, which lies in the modules beside it.
"""

from ._aio import AsyncClient
from ._attributes import AttributeInput, AttributeValue
from ._cases import CaseMatch, CaseOptions, Draft, DraftSentence, FindingStatus, Patients, SimilarCase
from ._client import Client
from ._collections import AttributeType, Collection, Count, Deletion, Operation
from ._errors import (
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    DiptychError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from ._facets import FacetCounts, FacetLike, FacetValue
from ._filter import Condition, F
from ._images import ImageSource
from ._labels import Classification, LabelLike, LabelScore
from ._query import Key, PartRef, Query, QueryLike, Source, Term, image, text, vector
from ._records import Item
from ._requests import Fusion, SearchItem, SearchLike, SearchOptions
from ._results import (
    CollectionStats,
    Embeddings,
    Hit,
    ImagePart,
    IngestResult,
    Part,
    Receipt,
    Record,
    RecordPage,
    Replay,
    SearchResult,
    SearchStats,
    Stats,
    TextPart,
    TextSpan,
)
from ._retry import RetryPolicy

__all__ = [
    "AlreadyExists",
    "AsyncClient",
    "AttributeInput",
    "AttributeType",
    "AttributeValue",
    "Cancelled",
    "CaseMatch",
    "CaseOptions",
    "Classification",
    "Client",
    "Collection",
    "CollectionStats",
    "Condition",
    "Count",
    "DataLoss",
    "DeadlineExceeded",
    "Deletion",
    "DiptychError",
    "Draft",
    "DraftSentence",
    "Embeddings",
    "F",
    "FacetCounts",
    "FacetLike",
    "FacetValue",
    "FailedPrecondition",
    "FindingStatus",
    "Fusion",
    "Hit",
    "ImagePart",
    "ImageSource",
    "IngestResult",
    "Internal",
    "InvalidArgument",
    "Item",
    "Key",
    "LabelLike",
    "LabelScore",
    "NotFound",
    "Operation",
    "Part",
    "PartRef",
    "Patients",
    "PermissionDenied",
    "Query",
    "QueryLike",
    "Receipt",
    "Record",
    "RecordPage",
    "Replay",
    "ResourceExhausted",
    "RetryPolicy",
    "SearchItem",
    "SearchLike",
    "SearchOptions",
    "SearchResult",
    "SearchStats",
    "SimilarCase",
    "Source",
    "Stats",
    "Term",
    "TextPart",
    "TextSpan",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "image",
    "text",
    "vector",
]
