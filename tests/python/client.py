"""Drives every method of diptych.v1 with stubs generated from the proto files.

Usage: client.py PROTO_DIR HOST:PORT PHANTOM_DIR
"""

import json
import pathlib
import sys

import grpc
import grpc_tools
from grpc_tools import protoc

proto, address, phantoms = sys.argv[1:]
well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
files = [f"diptych/v1/{name}.proto" for name in ("collections", "operations", "retrieval")]
assert protoc.main(["protoc", f"-I{proto}", f"-I{well_known}", "--python_out=.", "--grpc_python_out=.", *files]) == 0
sys.path.insert(0, ".")
from diptych.v1 import collections_pb2 as cpb  # noqa: E402
from diptych.v1 import collections_pb2_grpc as crpc  # noqa: E402
from diptych.v1 import operations_pb2 as opb  # noqa: E402
from diptych.v1 import operations_pb2_grpc as orpc  # noqa: E402
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

    collections = crpc.CollectionServiceStub(channel)
    operations = orpc.OperationServiceStub(channel)
    schema = cpb.AttributeSchema(types={"taken": cpb.ATTRIBUTE_TYPE_TIME}, closed=True)
    made = collections.CreateCollection(cpb.CreateCollectionRequest(name="py", schema=schema)).collection
    assert made.schema == schema and made.create_time.seconds > 0, made
    item = pb.IngestRequest(collection="py", key="a", texts=["Nodule."], request_id="once")
    item.attributes["taken"].time_value.FromJsonString("2024-01-31T08:30:00Z")
    first, second = stub.Ingest(iter([item, item]))
    assert first == second and first.outcome == pb.WRITE_OUTCOME_CREATED, (first, second)

    change = pb.UpdateRecordRequest(collection="py", record=pb.Record(key="a"))
    change.record.attributes["taken"].time_value.FromJsonString("2024-02-01T00:00:00Z")
    change.update_mask.paths.append("attributes.taken")
    assert stub.UpdateRecord(change).outcome == pb.WRITE_OUTCOME_UPDATED
    later = pb.AttributeComparison(attribute="taken", operator=pb.COMPARISON_OPERATOR_GREATER_OR_EQUAL)
    later.value.time_value.FromJsonString("2024-02-01T00:00:00Z")
    later = pb.Filter(compare=later)
    assert stub.CountRecords(pb.CountRecordsRequest(collection="py", filter=later)).records == 1

    assert collections.GetCollection(cpb.GetCollectionRequest(name="py")).collection.records == 1
    listed = collections.ListCollections(cpb.ListCollectionsRequest()).collections
    assert [c.name for c in listed] == ["default", "py"], listed
    rebuild = collections.RebuildIndex(cpb.RebuildIndexRequest(collection="py")).operation
    rebuild = operations.GetOperation(opb.GetOperationRequest(name=rebuild.name, wait_millis=10000)).operation
    assert rebuild.done and rebuild.result.indexed_points == 1, rebuild

    deletion = stub.DeleteRecords(pb.DeleteRecordsRequest(collection="py", filter=later))
    deletion = operations.GetOperation(opb.GetOperationRequest(name=deletion.operation.name, wait_millis=10000)).operation
    assert deletion.done and deletion.result.deleted_records == 1, deletion
    latest = operations.ListOperations(opb.ListOperationsRequest()).operations
    assert [o.name for o in latest] == [deletion.name, rebuild.name], latest
    operations.CancelOperation(opb.CancelOperationRequest(name=deletion.name))
    collections.DeleteCollection(cpb.DeleteCollectionRequest(name="py"))
    assert len(collections.ListCollections(cpb.ListCollectionsRequest()).collections) == 1

print("all well")
