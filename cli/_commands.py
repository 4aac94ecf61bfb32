"""One import per command file: importing it registers the command."""

from __future__ import annotations

from . import (  # noqa: F401
    dreamdiff_ablate,
    dreamdiff_app,
    dreamdiff_convert,
    dreamdiff_demo,
    dreamdiff_doctor,
    dreamdiff_evaluate,
    dreamdiff_finetune,
    dreamdiff_generate,
    dreamdiff_probe,
    dreamdiff_train,
    eegprep_build,
    eegprep_datasets,
    eegprep_doctor,
    eegprep_export,
    eegprep_fetch,
    eegprep_filter,
    eegprep_inspect,
    eegprep_merge,
    eegprep_pad,
    eegprep_report,
    eegprep_verify,
    pairs_audit,
    pairs_import,
    pairs_simulate,
    version,
)
