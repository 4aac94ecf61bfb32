"""One import per command file: importing it registers the command."""

from __future__ import annotations

from . import (  # noqa: F401  # noqa: F401, E402, I001
    dreamdiff_doctor,
    dreamdiff_finetune,
    dreamdiff_generate,
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
    pairs_audit,
    pairs_import,
    pairs_simulate,
    version,
)
