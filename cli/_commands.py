"""One import per command file: importing it registers the command."""

from __future__ import annotations

from . import dreamdiff_train, eegprep_build, eegprep_fetch, eegprep_filter, eegprep_inspect, eegprep_pad, version  # noqa: F401
from . import dreamdiff_finetune, dreamdiff_generate  # noqa: F401, E402, I001
