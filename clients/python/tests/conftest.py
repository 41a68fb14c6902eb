"""What the tests share: a server on a free port, its corpus, and a server that does as it is told."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from diptych import Client, Item
from diptych._proto.diptych.v1.retrieval_pb2_grpc import (
    RetrievalServiceServicer,
    add_RetrievalServiceServicer_to_server,
)

ROOT = Path(__file__).resolve().parents[3]
CASES = 80


@dataclass(frozen=True)
class Corpus:
    """A server with generated cases in its default collection."""

    address: str
    folder: Path
    cases: list[dict[str, Any]]

    def image(self, number: int) -> Path:
        """The file of a case's image."""
        return self.folder / str(self.cases[number]["image"])


def binary() -> str:
    """The program under test."""
    path = os.environ.get("DIPTYCH_BIN")
    if not path:
        pytest.skip("DIPTYCH_BIN is not set, so nothing is tested against a server; name the built diptych by it")
    return path


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with nothing in it."""
    program = binary()
    folder = tmp_path_factory.mktemp("server")
    model = os.environ.get("DIPTYCH_TEST_MODEL", str(ROOT / "data/models/mini"))
    with (folder / "log").open("wb") as log:
        command = [program, "serve", "--data", str(folder / "data"), "--model", model, "--listen", "127.0.0.1:0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server:
            assert server.stdout is not None
            words = server.stdout.readline().split()
            urls = [word for word in words if word.startswith("http://")]
            assert urls, (folder / "log").read_text()
            yield urls[0]
            server.kill()


@pytest.fixture(scope="session")
def corpus(address: str, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The server, and what is in its default collection."""
    folder = tmp_path_factory.mktemp("phantoms")
    command = [binary(), "phantom", "--cases", str(CASES), "--seed", "5", "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    cases = [json.loads(line) for line in (folder / "cases.jsonl").read_text().splitlines()]
    items = (
        Item(case["key"], images=[folder / case["image"]], texts=[case["text"]], attributes=case["attributes"])
        for case in cases
    )
    with Client(address) as client:
        outcomes = [result.raise_for_error().outcome for result in client.ingest(items)]
    assert outcomes == ["created"] * CASES
    return Corpus(address, folder, cases)


@pytest.fixture()
def client(address: str) -> Iterator[Client]:
    """A client of the server."""
    with Client(address) as made:
        yield made


@dataclass
class Obedient(RetrievalServiceServicer):
    """A server that answers what a test tells it to, and remembers what it was asked."""

    answers: list[Any] = field(default_factory=list)
    """For each call in turn: a message, or (code, text, trailing metadata) of an error."""
    asked: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)

    def _answer(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        self.metadata.append({key: value for key, value in context.invocation_metadata()})
        answer = self.answers.pop(0)
        if isinstance(answer, tuple):
            code, text, trailing = answer
            context.set_trailing_metadata(trailing)
            context.abort(code, text)
        return answer

    Search = GetRecord = ListRecords = DeleteRecord = Embed = Stats = _answer
    UpdateRecord = CountRecords = DeleteRecords = Replay = Classify = _answer

    def Ingest(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        """Reads a request, then answers it."""
        for request in requests:
            if not self.answers:
                return
            yield self._answer(request, context)

    def BatchSearch(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        """The same."""
        yield from self.Ingest(requests, context)


@dataclass
class Running:
    """An obedient server and where it listens."""

    service: Obedient
    address: str


def serve(credentials: grpc.ServerCredentials | None = None) -> tuple[grpc.Server, Running]:
    """Starts an obedient server on a free port."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    # To its types the generated class is abstract in every call, also in those that no test makes.
    kind: Any = Obedient
    service: Obedient = kind()
    add_RetrievalServiceServicer_to_server(service, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, Running(service, f"127.0.0.1:{port}")


@pytest.fixture()
def obedient() -> Iterator[Running]:
    """A server that does as it is told."""
    server, running = serve()
    yield running
    server.stop(None).wait()
