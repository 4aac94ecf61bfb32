# The main chain with the installed scripts, from an empty folder: recordings -> corpus -> models -> images -> metrics.
set -euo pipefail
export HF_HUB_OFFLINE=1 MPLBACKEND=agg

eegprep --version
dreamdiff --version
eegprep build sample.toml --out corpus.zarr
eegprep verify corpus.zarr
eegprep inspect corpus.zarr
eegprep report corpus.zarr --out report.html
python - <<'PY'
import zarr

group = next(g for _, g in zarr.open_group("corpus.zarr", mode="r").groups())
windows = next(g for _, g in group.groups())["windows"]
assert windows.shape[1:] == (128, 512) and str(windows.dtype) == "float32", windows
PY
dreamdiff train msm --store corpus.zarr --out msm --preset tiny --set loop.max_steps=20
dreamdiff pairs simulate --out pairs.zarr --people 1 --trials 6
dreamdiff pairs audit pairs.zarr --split trial || test $? = 3
dreamdiff train finetune --pairs pairs.zarr --encoder msm --sd embedded --clip embedded --out finetuned --preset demo --set loop.max_steps=4
dreamdiff generate --model finetuned --eeg pairs.zarr --out images --select test --samples 1 --steps 4
test -n "$(ls images/*.png)" && test -n "$(ls images/*.json)"
