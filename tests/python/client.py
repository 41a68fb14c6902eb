"""Drives every method of diptych.v1 with stubs generated from the proto files.

Usage: client.py PROTO_DIR HOST:PORT PHANTOM_DIR
"""

import json
import pathlib
import sys

import grpc
from grpc_tools import protoc

proto, address, phantoms = sys.argv[1:]
assert protoc.main(["protoc", f"-I{proto}", "--python_out=.", "--grpc_python_out=.", "diptych/v1/retrieval.proto"]) == 0
sys.path.insert(0, ".")
from diptych.v1 import retrieval_pb2 as pb  # noqa: E402
from diptych.v1 import retrieval_pb2_grpc as rpc  # noqa: E402

case = json.loads(pathlib.Path(phantoms, "cases.jsonl").read_text().splitlines()[4])
image = pathlib.Path(phantoms, case["image"]).read_bytes()

with grpc.insecure_channel(address) as channel:
    stub = rpc.RetrievalServiceStub(channel)

    stats = stub.Stats(pb.StatsRequest())
    assert stats.collections[0].records == 20, stats

    hits = stub.Search(pb.SearchRequest(text=case["text"], target=pb.MODALITY_IMAGE, k=3)).hits
    assert len(hits) == 3 and hits[0].score >= hits[1].score, hits
    hits = stub.Search(pb.SearchRequest(image=image, target=pb.MODALITY_IMAGE)).hits
    assert hits[0].key == case["key"] and hits[0].score > 0.999, hits
    hits = stub.Search(pb.SearchRequest(image=image, target=pb.MODALITY_TEXT)).hits
    assert hits[0].part.text.text.startswith("FINDINGS"), hits
    query = pb.KeyQuery(key=case["key"])
    hits = stub.Search(pb.SearchRequest(key=query, target=pb.MODALITY_IMAGE)).hits
    assert hits[0].key == case["key"], hits

    older = pb.AttributeComparison(
        attribute="age", operator=pb.COMPARISON_OPERATOR_GREATER, value=pb.FilterValue(integer_value=50)
    )
    request = pb.SearchRequest(text=case["text"], target=pb.MODALITY_IMAGE, filter=pb.Filter(compare=older))
    answer = stub.Search(request)
    assert all(hit.attributes["age"].integer_value > 50 for hit in answer.hits), answer
    assert answer.stats.plan == pb.SEARCH_PLAN_SCAN and 0 < answer.stats.matching_points < 20, answer.stats
    answer = stub.Search(pb.SearchRequest(text=case["text"], target=pb.MODALITY_IMAGE, target_recall=0.95))
    assert len(answer.hits) == 10, answer

    embedded = stub.Embed(pb.EmbedRequest(texts=[case["text"]], images=[pb.ImageInput(data=image)]))
    vector = embedded.text_embeddings[0]
    hits = stub.Search(pb.SearchRequest(vector=vector, target=pb.MODALITY_TEXT)).hits
    assert hits[0].score > 0.999, hits

    items = [pb.IngestRequest(key=f"py-{n}", texts=[f"Nodule {n}."]) for n in range(3)]
    items.append(pb.IngestRequest(key="py-bad", texts=[""]))
    answers = list(stub.Ingest(iter(items)))
    assert [a.outcome for a in answers[:3]] == [pb.WRITE_OUTCOME_CREATED] * 3, answers
    assert answers[3].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0], answers

    record = stub.GetRecord(pb.GetRecordRequest(key="py-1")).record
    assert record.parts[0].text.text == "Nodule 1.", record
    page = stub.ListRecords(pb.ListRecordsRequest(page_size=2))
    assert len(page.records) == 2 and page.next_page_token, page

    stub.DeleteRecord(pb.DeleteRecordRequest(key="py-1"))
    try:
        stub.GetRecord(pb.GetRecordRequest(key="py-1"))
        raise AssertionError("a deleted record was read")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error

print("all well")
