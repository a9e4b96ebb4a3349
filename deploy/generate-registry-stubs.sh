#!/usr/bin/env bash
# Makes the Python of brainunet/registry/registry.proto anew, with the grpcio-tools of the virtual environment (for developers;
# nothing else needs them): .venv/bin/pip install grpcio-tools
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-.venv/bin/python}
"$python" -m grpc_tools.protoc --proto_path=. \
    --python_out=. --pyi_out=. --grpc_python_out=. brainunet/registry/registry.proto
