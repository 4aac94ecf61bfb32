# `eegprep` alone, without PyTorch: recordings -> corpus -> checks, and one line where `dreamdiff` is called.
set -euo pipefail
export MPLBACKEND=agg

eegprep --version
eegprep build sample.toml --out corpus.zarr
eegprep verify corpus.zarr
eegprep inspect corpus.zarr
eegprep report corpus.zarr --out report.html
eegprep export corpus.zarr corpus.h5
eegprep doctor >/dev/null
python - <<'PY'
from importlib.util import find_spec

import eegprep

assert [name for name in ("torch", "diffusers", "torchvision", "transformers") if find_spec(name)] == []
assert eegprep.Corpus.open("corpus.zarr").read([0]).shape == (1, 128, 512)
PY
dreamdiff --help >/dev/null
code=0
dreamdiff demo --out demo 2>message || code=$?
test "$code" = 1
grep -q "pip install 'eeg-dreamdiff\[models\]'" message
test "$(wc -l <message)" = 2
