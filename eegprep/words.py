"""Counts in messages."""

from __future__ import annotations

_MANY = {"person": "people", "category": "categories"}


def count(number: int, one: str) -> str:
    """`1 person`, `2 people`, `1,024 windows`.

    Example:
        >>> count(1, "recording"), count(2, "recording")
        ('1 recording', '2 recordings')
    """
    return f"{number:,} {one if number == 1 else _MANY.get(one, one + 's')}"
