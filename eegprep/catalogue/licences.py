"""Normalises licence names to SPDX and says what they allow."""

from __future__ import annotations

import re

# what people and metadata write -> SPDX id (https://spdx.org/licenses); anything else is kept and treated as unknown
_SPDX_SPELLINGS = {
    "cc0": "CC0-1.0",
    "cc01.0": "CC0-1.0",
    "publicdomain": "CC0-1.0",
    "odcby": "ODC-By-1.0",
    "odcby1.0": "ODC-By-1.0",
    "gpl3": "GPL-3.0-only",
    "gpl3.0": "GPL-3.0-only",
    "gpl3.0only": "GPL-3.0-only",
    "mit": "MIT",
    "apache2.0": "Apache-2.0",
    "pddl": "PDDL-1.0",
    "pddl1.0": "PDDL-1.0",
    "noncommercialresearchuse": "LicenseRef-noncommercial-research",
}

_CC = re.compile(r"cc(by(?:nc)?(?:nd|sa)?)(\d\.\d)?")

OPEN_LICENCES = (
    "CC0-1.0", "CC-BY-1.0", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "ODC-By-1.0", "PDDL-1.0",
    "MIT", "Apache-2.0",
)  # fmt: skip

UNKNOWN_LICENCE = "unknown"


def spdx(text: str | None) -> str:
    """The SPDX id for any spelling of a licence; "unknown" when nothing is declared; the text itself if not recognised."""
    if not text or text.strip().lower() in {"", "unknown", "none", "n/a", "other-open", "other"}:
        return UNKNOWN_LICENCE
    plain = re.sub(r"[\s_\-:/]+", "", text.strip().lower()).removeprefix("license").removeprefix("licence")
    if plain in _SPDX_SPELLINGS:
        return _SPDX_SPELLINGS[plain]
    creative = _CC.fullmatch(plain)
    if creative:
        terms, version = creative.groups()
        parts = "-".join(part.upper() for part in re.findall("by|nc|nd|sa", terms))
        # without a version, the current one is meant
        return f"CC-{parts}-{version or '4.0'}"
    return text.strip()


def is_open(licence: str) -> bool:
    """Whether derivatives may be made and shared, also commercially, with attribution at most share-alike."""
    return spdx(licence) in OPEN_LICENCES


def licence_terms(licence: str) -> list[str]:
    """What a person should know before building on it."""
    name = spdx(licence)
    if name in OPEN_LICENCES:
        return ["share-alike"] if "-SA-" in name else []
    terms = []
    if "-NC" in name or "noncommercial" in name:
        terms.append("non-commercial use only")
    if "-ND" in name:
        terms.append("derivatives, such as a filtered corpus, must not be shared")
    if "-SA-" in name:
        terms.append("share-alike")
    if name.startswith("GPL"):
        terms.append("derivatives under the same licence")
    return terms or ["nothing is known about what is allowed"]
