"""What of `dreamdiff` is attacked: its commands, its stores, weights and images, and files of strangers."""

from __future__ import annotations

from campaign import Command, Hostile, Stored

COMMANDS: list[Command] = []
STORES: list[Stored] = []
HOSTILE: list[Hostile] = []
