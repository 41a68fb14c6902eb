"""The checked-in stubs are those of the proto files, and the package's types are right."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from conftest import ROOT

PACKAGE = Path(__file__).parents[1]
STUBS = PACKAGE / "src/diptych/_proto"
REMEDY = "run clients/python/generate.sh"


def proto_files(root: Path) -> list[str]:
    return sorted(str(file.relative_to(root)) for file in root.rglob("*.proto"))


@pytest.mark.parametrize("root", [ROOT / "proto", PACKAGE / "proto"], ids=["service", "client"])
def test_the_stubs_are_those_of_the_proto_files(root: Path, tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is missing, so stubs are not compared")
    include = str(Path(protoc.__file__).parent / "_proto")
    out = tmp_path / "set"
    files = proto_files(root)
    assert files
    assert protoc.main(["protoc", f"-I{root}", f"-I{include}", f"--descriptor_set_out={out}", *files]) == 0
    for truth in FileDescriptorSet.FromString(out.read_bytes()).file:
        stem = truth.name.removesuffix(".proto")
        try:
            module = importlib.import_module("diptych._proto." + stem.replace("/", ".") + "_pb2")
        except ModuleNotFoundError:
            pytest.fail(f"{truth.name} has no stubs; {REMEDY}")
        checked_in = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(checked_in)
        # What protoc adds to a set and a module leaves out.
        truth.ClearField("source_code_info")
        for message in truth.message_type:
            _forget_json_names(message)
        for message in checked_in.message_type:
            _forget_json_names(message)
        assert checked_in == truth, f"the stubs of {truth.name} are older than it; {REMEDY}"
        _types_agree(truth, stem)


def _forget_json_names(message: object) -> None:
    for field in message.field:  # type: ignore[attr-defined]
        field.ClearField("json_name")
    for nested in message.nested_type:  # type: ignore[attr-defined]
        _forget_json_names(nested)


def _types_agree(truth: FileDescriptorProto, stem: str) -> None:
    """Every name of the file is in its typed stubs."""
    types = (STUBS / f"{stem}_pb2.pyi").read_text()
    names = [*(message.name for message in truth.message_type), *(enum.name for enum in truth.enum_type)]
    names += [field.name for message in truth.message_type for field in message.field]
    if truth.service:
        types += (STUBS / f"{stem}_pb2_grpc.pyi").read_text()
        names += [f"{service.name}Stub" for service in truth.service]
        names += [method.name for service in truth.service for method in service.method]
    missing = [name for name in names if name not in types]
    assert not missing, f"the types of {truth.name} lack {missing}; {REMEDY}"


def test_no_stubs_are_left_of_files_that_are_gone() -> None:
    stems = {file.removesuffix(".proto") for root in (ROOT / "proto", PACKAGE / "proto") for file in proto_files(root)}
    found = {str(file.relative_to(STUBS)).removesuffix("_pb2.py") for file in STUBS.rglob("*_pb2.py")}
    assert found == stems, REMEDY


def test_the_package_is_typed_to_the_last_word(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is missing, so types are not checked")
    pytest.importorskip("PIL")
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), "--python-version", "3.10"]
    said = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
