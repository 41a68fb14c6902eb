#!/usr/bin/env bash
# Generates src/diptych/_proto, or the folder given, from the proto files: messages, service stubs and their types.
# Needs the versions named below, which decide how old a grpcio and a protobuf the package runs with; PYTHON is
# the interpreter that has them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/src/diptych/_proto}
python=${PYTHON:-python3}
tools="grpcio-tools==1.76.0 mypy-protobuf==5.1.0"

installed=$("$python" - <<'PY'
from importlib.metadata import PackageNotFoundError, version
def named(name):
    try:
        return f"{name}=={version(name)}"
    except PackageNotFoundError:
        return f"{name} is missing"
print(named("grpcio-tools"), named("mypy-protobuf"))
PY
)
if [ "$installed" != "$tools" ]; then
  echo "generate.sh: needs $tools, found: $installed; run 'pip install $tools setuptools' in a virtual environment and name it by PYTHON" >&2
  exit 1
fi

mkdir -p "$out"
find "$out" -name '*_pb2*.py*' -delete
# The plugins lie beside the interpreter.
PATH="$(dirname "$(command -v "$python")"):$PATH"
for root in "$here/../../proto" "$here/proto"; do
  (cd "$root" && find diptych -name '*.proto' | LC_ALL=C sort | while read -r file; do
    services=""
    if grep -q '^service ' "$file"; then
      services="--grpc_python_out=$out --mypy_grpc_out=quiet:$out"
    fi
    # shellcheck disable=SC2086
    "$python" -m grpc_tools.protoc -I. --python_out="$out" --mypy_out="quiet:$out" $services "$file"
  done)
done

# protoc imports from the root of the search path; here the files lie in a package.
find "$out" -name '*_pb2*.py*' | while read -r file; do
  sed -i.old 's/^from diptych\.[a-z]*\.v1 import/from . import/; s/^from diptych\.v1 import/from . import/' "$file"
  rm "$file.old"
done
