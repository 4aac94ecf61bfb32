"""Chooses subjects: `1-10,12` against the ids that a data set has."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eegprep.errors import UsageError
from eegprep.settings import suggest

MOST = 100_000  # ids in a range


def parse_subjects(text: str, known: Sequence[str] | None = None) -> tuple[str, ...]:
    """`"1-3,7"` as `("1", "2", "3", "7")`; `"01-03"` keeps its zeros.

    Args:
        known: the ids there are. A range leaves out what is not among them (ids have gaps), a single id must be there.

    Raises:
        UsageError: an empty or backward range, nothing left, or an id that is not known.
    """
    chosen: list[str] = []
    for token in subject_tokens(text):
        if known is not None:
            chosen += _members(token, known)
            continue
        span = re.fullmatch(r"(\d+)-(\d+)", token)
        if span is None:
            chosen.append(token)
        else:
            width = len(span[1]) if span[1].startswith("0") else 0
            chosen += [str(number).zfill(width) for number in range(int(span[1]), int(span[2]) + 1)]
    return tuple(dict.fromkeys(chosen))


def subject_tokens(text: str) -> tuple[str, ...]:
    """`"1-3, 7"` as `("1-3", "7")`: what can only be resolved once the ids are known.

    Raises:
        UsageError: nobody is named, or a range is backward.
    """
    tokens = [part.strip() for part in text.split(",") if part.strip()]
    for token in tokens:
        if len(token) > 200:
            raise UsageError(f"subjects {token[:40]!r}...: {len(token):,} characters (limit 200)", "write for instance 1-10,12")
        span = re.fullmatch(r"(\d+)-(\d+)", token)
        if span is not None and int(span[2]) - int(span[1]) >= MOST:
            raise UsageError(
                f"subjects {token!r}: {int(span[2]) - int(span[1]) + 1:,} ids (limit {MOST:,})", "write a shorter range"
            )
        if span is not None and int(span[2]) < int(span[1]):
            raise UsageError(f"subjects {token!r}: {int(span[1])} comes after {int(span[2])}", f"write {span[2]}-{span[1]}")
    if not tokens:
        raise UsageError(f"subjects {text!r} names nobody", "write for instance --subjects 1-10,12")
    return tuple(dict.fromkeys(tokens))


def choose_subjects(tokens: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The ids that are meant, in the order of `tokens`.

    An id is meant by itself, by its number without leading zeros (`1` for `01`), with `sub-` in front, or by a range of numbers
    (`1-10`, `S01-S10`), which leaves out what is not there.

    Raises:
        UsageError: a token means nobody; the ids are listed.
    """
    return tuple(dict.fromkeys(subject for token in tokens for subject in _members(token, known)))


def _members(token: str, known: Sequence[str]) -> list[str]:
    for name in (token, token.removeprefix("sub-")):
        if name in known:
            return [name]
    span = re.fullmatch(r"(?P<head>\D*?)(?P<first>\d+)-(?P<other>\D*?)(?P<last>\d+)", token)
    if span is not None and span["other"] in ("", span["head"]):
        first, last, head = int(span["first"]), int(span["last"]), span["head"]
    elif token.isdigit():
        first, last, head = int(token), int(token), ""
    else:
        raise _unknown_subject(token, known)
    numbered = [(re.fullmatch(rf"{re.escape(head)}(\d+)", subject), subject) for subject in known]
    members = [subject for match, subject in numbered if match is not None and first <= int(match[1]) <= last]
    if not members:
        raise _unknown_subject(token, known)
    return members


def _unknown_subject(token: str, known: Sequence[str]) -> UsageError:
    return UsageError(f"there is no subject {token!r}{suggest(token, known)}", f"choose among the {len(known)}: {_spans(known)}")


def _spans(known: Sequence[str]) -> str:
    """`1-4, 6-8` for numbers, a list for other ids."""
    if not all(re.fullmatch(r"[1-9]\d*|0", subject) for subject in known):
        return ", ".join(known[:12]) + (" ..." if len(known) > 12 else "")
    numbers = sorted(int(subject) for subject in known)
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
