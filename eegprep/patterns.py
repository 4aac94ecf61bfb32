"""Regular expressions of other people (in a manifest or on the command line), searched within a limit of time.

Python's engine can take longer than the universe has existed for forty letters and `(a+)+$`; this one stops.
"""

from __future__ import annotations

from functools import lru_cache

import regex

from eegprep.errors import UsageError

LIMIT_S = 1.0
_LONGEST = 1000  # characters of a pattern


@lru_cache(maxsize=64)
def compiled(pattern: str) -> regex.Pattern[str]:
    """A pattern that can be searched with `search`.

    Raises:
        UsageError: it is not a regular expression, or a very long one.
    """
    if len(pattern) > _LONGEST:
        raise UsageError(f"a pattern of {len(pattern):,} characters (limit {_LONGEST:,})", "write a shorter one")
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        raise UsageError(f"pattern {pattern!r} is not a regular expression ({error})", "correct the pattern") from None


def search(pattern: str, text: str) -> dict[str, str | None] | None:
    """The named groups of the first place where the pattern fits; None where it fits nowhere.

    Raises:
        UsageError: see `compiled`; or the search takes longer than a second, because the pattern needs exponential time.
    """
    result = _search(pattern, text)
    return None if result is None else result.groupdict()


def first_group(pattern: str, text: str) -> str | None:
    """What the first group matches (of the whole match, where there is no group); "" for a group that took no part, None for no match.

    Raises:
        UsageError: as in `search`.
    """
    result = _search(pattern, text)
    if result is None:
        return None
    return str(result[0] if not result.re.groups else result[1] or "")


def _search(pattern: str, text: str) -> regex.Match[str] | None:
    try:
        return compiled(pattern).search(text, timeout=LIMIT_S)
    except TimeoutError:
        raise UsageError(
            f"pattern {pattern!r}: no answer within {LIMIT_S:g} s for the name {text[:80]!r}",
            "write it without a repetition inside a repetition, such as (a+)+",
        ) from None
