#!/usr/bin/env bash
# The quick tests with the lowest versions that pyproject.toml declares, in an environment of their own.
#   tests/lowest.sh base [PYTEST ARGUMENT...]     eegprep, without PyTorch
#   tests/lowest.sh models [PYTEST ARGUMENT...]   both packages (brings 6 GB)
# PYTHON chooses the interpreter; KEEP=FOLDER keeps the environment there and uses it again; RESOLUTION=highest takes the newest
# versions instead, to try another Python.
set -euo pipefail
part=$1
shift
case $part in
    base) extras=() leave_out='lpips; python_version < "3"' ;;   # a tool of the tests that would bring PyTorch
    models) extras=(--extra models --extra app --extra evaluation) leave_out='' ;;
    *) echo "base or models, not $part" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/.."
if [ -n "${KEEP:-}" ]; then work=$KEEP; else work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; fi
export PIP_DISABLE_PIP_VERSION_CHECK=1
if [ ! -x "$work/tools/bin/uv" ]; then
    "${PYTHON:-python3}" -m venv "$work/tools"
    "$work/tools/bin/python" -m pip install --quiet uv
fi
uv() { "$work/tools/bin/uv" --quiet "$@"; }

[ -x "$work/$part/bin/python" ] || uv venv --python "$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)')" "$work/$part"
python=$work/$part/bin/python
uv pip compile --python "$python" --resolution "${RESOLUTION:-lowest-direct}" "${extras[@]}" pyproject.toml --output-file "$work/$part.txt"
echo "$leave_out" >"$work/$part.leave-out.txt"
# tools of the tests are the newest that go with these
uv pip install --python "$python" --requirement "$work/$part.txt" --group dev --override "$work/$part.leave-out.txt"
uv pip install --python "$python" --no-deps --editable .
grep -E '^(mne|moabb|zarr|numpy|pandas|torch|diffusers|transformers)==' "$work/$part.txt" | tr '\n' ' '
echo

if [ "$part" = base ]; then
    "$python" -c 'from importlib.util import find_spec; assert find_spec("torch") is None'
    files=$(grep -rLE 'dreamdiff|benchmarks' tests --include='test_*.py')
else
    files=tests
fi
# shellcheck disable=SC2086
OMP_NUM_THREADS=1 "$python" -m pytest -n 2 --dist worksteal -m "not slow" $files "$@"
