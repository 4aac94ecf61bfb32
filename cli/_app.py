"""The two Typer apps and their sub-apps. Nothing heavy is imported here, so that `--help` answers at once."""

from __future__ import annotations

import typer


def _app(help: str) -> typer.Typer:
    return typer.Typer(
        help=help,
        no_args_is_help=True,
        rich_markup_mode=None,  # brackets in help texts are brackets
        pretty_exceptions_enable=False,  # errors are printed by main.py, in one line
        context_settings={"help_option_names": ["-h", "--help"]},
    )


eegprep_app = _app("Public and private EEG into one verified zarr corpus.")
dreamdiff_app = _app("Masked-signal pre-training on EEG, Stable Diffusion fine-tuning, generation, evaluation.")
train_app = _app("Train: `msm` (masked signal modelling), then `finetune` (Stable Diffusion with CLIP alignment).")
pairs_app = _app("EEG-image pairs: import, simulate, audit.")
dreamdiff_app.add_typer(train_app, name="train")
dreamdiff_app.add_typer(pairs_app, name="pairs")
