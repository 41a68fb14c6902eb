"""Cases: similar ones to a case, and drafts of reports. Retrieved text, not a diagnosis.

Owns how they are asked for and answered. Deliberately absent: sending.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from ._attributes import AttributeValue, from_wire
from ._filter import FilterLike, filter_to_wire
from ._images import ImageSource
from ._proto.diptych.v1 import cases_pb2 as pb
from ._query import image
from ._results import Part, part_of

FindingStatus = Literal["present", "absent", "uncertain"]
"""Whether something is there, as a report says."""
Patients = Literal["others", "all", "same"]
"""Whose cases are found: other patients', everyone's, or only the same patient's, the latest first."""

_STATUSES: dict[str, pb.FindingStatus.ValueType] = {
    "present": pb.FINDING_STATUS_PRESENT,
    "absent": pb.FINDING_STATUS_ABSENT,
    "uncertain": pb.FINDING_STATUS_UNCERTAIN,
}
_NAMES: dict[int, FindingStatus] = {
    pb.FINDING_STATUS_PRESENT: "present",
    pb.FINDING_STATUS_ABSENT: "absent",
    pb.FINDING_STATUS_UNCERTAIN: "uncertain",
}
_PATIENTS: dict[str, pb.CasePatients.ValueType] = {
    "others": pb.CASE_PATIENTS_OTHERS,
    "all": pb.CASE_PATIENTS_ALL,
    "same": pb.CASE_PATIENTS_SAME,
}


class CaseOptions(TypedDict, total=False):
    """A case to start from, of which at least one of images, report and key is given, and where to look."""

    images: Sequence[ImageSource | str]
    """The views of a study; a str is a path."""
    report: str
    """A report, whole or begun, or one sentence."""
    key: str
    """A stored case."""
    findings: Mapping[str, FindingStatus]
    """What is known to be there or not; goes before what the report says."""
    patient: str
    """The patient, as the attribute patient_id has it."""
    patients: Patients
    k: int
    """Cases wanted, or read for a draft."""
    filter: FilterLike
    findings_weight: float
    """How many standard deviations a case sinks when every finding contradicts; 0 for not at all."""
    thumbnails: bool


@dataclass(frozen=True)
class CaseMatch:
    """A part of a stored case that meets an image or a sentence of the case asked with."""

    part: Part
    cosine: float


@dataclass(frozen=True)
class SimilarCase:
    """A case that is like another."""

    key: str
    score: float
    """Orders the cases of one answer; in standard deviations over those that were looked at."""
    relevance: float | None
    """How likely parts as close as the closest ones are to be of one case; None where it cannot be told."""
    image: CaseMatch | None
    sentence: CaseMatch | None
    impression: str
    findings: Mapping[str, FindingStatus]
    common: tuple[str, ...]
    """The findings that both cases say are there."""
    conflicts: Mapping[str, tuple[FindingStatus, FindingStatus]]
    """The findings that one says are there and the other not: what the case asked with says, and what this does."""
    attributes: Mapping[str, AttributeValue]
    thumbnail: bytes | None = field(repr=False)


@dataclass(frozen=True)
class DraftSentence:
    """A sentence of the reports of similar cases, as it stands in the one that `key` names."""

    text: str
    key: str
    support: float
    """Share of the similar cases, by weight, whose reports say the same."""
    supporting: tuple[str, ...]
    findings: Mapping[str, FindingStatus]


@dataclass(frozen=True)
class Draft:
    """Sentences for a report, the best supported first. Retrieved text, not a diagnosis."""

    findings: tuple[DraftSentence, ...]
    impression: tuple[DraftSentence, ...]
    keys: tuple[str, ...]
    contradictions: int


def similar_request(collection: str, options: CaseOptions) -> pb.FindSimilarRequest:
    """The request for similar cases."""
    images = options.get("images", ())
    if isinstance(images, (str, bytes)) or not isinstance(images, Sequence):
        raise TypeError("images is a sequence; write images=[...], also for one")
    patients = options.get("patients", "others")
    if patients not in _PATIENTS:
        raise ValueError(f"there are no patients {patients!r}; use 'others', 'all' or 'same'")
    request = pb.FindSimilarRequest(
        collection=collection,
        k=options.get("k"),
        patients=_PATIENTS[patients],
        findings_weight=options.get("findings_weight"),
        thumbnails=options.get("thumbnails", False),
    )
    if "filter" in options:
        request.filter.CopyFrom(filter_to_wire(options["filter"]))
    for picture in images:
        encoded = image(picture).source
        assert isinstance(encoded, bytes)
        request.case.images.append(encoded)
    request.case.report = options.get("report", "")
    request.case.key = options.get("key", "")
    request.case.patient_id = options.get("patient", "")
    for name, status in options.get("findings", {}).items():
        if status not in _STATUSES:
            raise ValueError(f"the status of {name!r} is {status!r}; use 'present', 'absent' or 'uncertain'")
        request.case.findings[name] = _STATUSES[status]
    return request


def draft_request(
    collection: str, options: CaseOptions, sentences: int | None, min_support: float | None
) -> pb.DraftRequest:
    """The request for a draft."""
    similar = similar_request(collection, options)
    return pb.DraftRequest(similar=similar, sentences=sentences, min_support=min_support)


def similar_cases(response: pb.FindSimilarResponse) -> tuple[SimilarCase, ...]:
    """The answer of FindSimilar."""
    return tuple(_case(each) for each in response.cases)


def draft(response: pb.DraftResponse) -> Draft:
    """The answer of Draft."""
    return Draft(
        findings=tuple(_sentence(each) for each in response.findings),
        impression=tuple(_sentence(each) for each in response.impression),
        keys=tuple(response.keys),
        contradictions=response.contradictions,
    )


def _case(case: pb.SimilarCase) -> SimilarCase:
    return SimilarCase(
        key=case.key,
        score=case.score,
        relevance=case.relevance if case.HasField("relevance") else None,
        image=_match(case.image) if case.HasField("image") else None,
        sentence=_match(case.sentence) if case.HasField("sentence") else None,
        impression=case.impression,
        findings=_findings(case.findings),
        common=tuple(case.common),
        conflicts={each.finding: (_NAMES[each.query], _NAMES[each.found]) for each in case.conflicts},
        attributes=from_wire(case.attributes),
        thumbnail=case.thumbnail or None,
    )


def _match(match: pb.CaseMatch) -> CaseMatch:
    return CaseMatch(part_of(match.part), match.cosine)


def _sentence(sentence: pb.DraftSentence) -> DraftSentence:
    return DraftSentence(
        text=sentence.text,
        key=sentence.key,
        support=sentence.support,
        supporting=tuple(sentence.supporting_keys),
        findings=_findings(sentence.findings),
    )


def _findings(findings: Mapping[str, int]) -> dict[str, FindingStatus]:
    return {name: _NAMES[status] for name, status in findings.items() if status in _NAMES}
