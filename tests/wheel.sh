#!/usr/bin/env bash
# The built wheel in clean environments, from an empty folder: first without the models (no PyTorch), then with them.
set -euo pipefail
wheel=$(realpath "$1")
tests=$(cd "$(dirname "$0")" && pwd)
clean=$(mktemp -d)
trap 'rm -rf "$clean"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1

smoke() {  # name, extra, script
    "${PYTHON:-python3}" -m venv "$clean/venv-$1"
    "$clean/venv-$1/bin/python" -m pip install --quiet --upgrade "pip>=25.1"
    "$clean/venv-$1/bin/python" -m pip install --quiet "$wheel$2"
    "$clean/venv-$1/bin/python" -m pip check
    mkdir "$clean/empty-$1"
    cp "$tests/$3" "$clean/$3"
    (cd "$clean/empty-$1" && PATH="$clean/venv-$1/bin:$PATH" bash "$clean/$3")
}

smoke base "" smoke_base.sh
smoke models "[models]" smoke.sh
echo "smoke chains on the built wheel: 2 passed, 0 failed"
