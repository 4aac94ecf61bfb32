"""What can be attacked, and the four kinds of attack.

A `Command` is killed and interrupted, and has errors injected; a `Stored` thing has its bits flipped; a `Hostile` file is read.
Every draw depends on the seed, the name of what is attacked and the number of the attack alone, so that an outcome can be had again
(the moment of a kill also depends on the speed of the machine).
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ERRORS, Ended, Faults, empty, flipped, load, loaded, run, start, tree
from journal import Entry, Journal

KINDS = ("kills", "errors", "flips", "files")


@dataclass(frozen=True)
class Command:
    """Something that writes.

    prepare: puts its inputs into an empty folder, once. run: from (inputs, output). content: what has to be equal afterwards.
    share: how many attacks it gets relative to others; commands that take seconds get fewer.
    """

    name: str
    prepare: Callable[[Path], None]
    run: Callable[[Path, Path], Any]
    content: Callable[[Path], Any] = tree
    share: float = 1.0


@dataclass(frozen=True)
class Stored:
    """Something on disk that is read.

    make: puts it into an empty folder and returns its path. read: everything that a reader sees of it, as values that can be
    compared and pickled. files: those whose bits are flipped.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    files: Callable[[Path], Sequence[Path]] = lambda path: sorted(f for f in path.rglob("*") if f.is_file()) or [path]
    share: float = 1.0


@dataclass(frozen=True)
class Hostile:
    """A file or folder of a stranger.

    make: puts it into an empty folder. use: what a person does with it. good: whether the outcome is right; by default every end but a
    crash, a hang and a kill is. memory: bytes it may take beyond what the process has already.
    """

    name: str
    make: Callable[[Path], Any]
    use: Callable[[Path], Any]
    good: Callable[[Ended], bool] = lambda ended: ended.fine
    memory: int = 2 << 30
    seconds: float = 30.0


@dataclass
class Campaign:
    """Attacks on one target: where to work, the seed, and how many seconds they may take once the target is prepared."""

    work: Path
    seed: int
    seconds: float
    journal: Journal
    deadline: float = math.inf
    prepared: tuple[str, tuple[Path, Path, Any, float]] | None = None

    def draw(self, kind: str, name: str, number: int) -> random.Random:
        return random.Random(f"{self.seed}/{kind}/{name}/{number}")

    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def add(self, kind: str, name: str, number: int, outcome: str, said: str = "", signals: int = 0) -> None:
        self.journal.add(Entry(kind, name, number, outcome, " ".join(said.split())[:600], signals))

    def numbers(self, kind: str, name: str, count: int) -> list[int]:
        """The attacks that are still to be made."""
        return sorted(set(range(count)) - self.journal.done(kind, name))

    # ------------------------------------------------------------------------------------------------- commands

    def _place(self, name: str) -> tuple[Path, Path]:
        """(inputs, output) of a command: side by side in a folder of their own, with a file that nobody may touch."""
        place = empty(self.work / name.replace(" ", "-").replace("/", "-"))
        (place / "inputs").mkdir(parents=True)
        (place / "mine.txt").write_text("mine")
        return place / "inputs", place / "out"

    def _undisturbed(self, command: Command) -> tuple[Path, Path, Any, float]:
        """Inputs, output, what has to be there at the end, and seconds: once for kills and errors."""
        if self.prepared is None or self.prepared[0] != command.name:
            self.prepared = command.name, self._prepare(command)
        self.deadline = time.monotonic() + self.seconds
        return self.prepared[1]

    def _prepare(self, command: Command) -> tuple[Path, Path, Any, float]:
        inputs, out = self._place(command.name)
        made = run(lambda: command.prepare(inputs), seconds=900)
        if made.kind != "value":
            raise SystemExit(f"{command.name}: its inputs could not be made: {made.text}")
        started = time.monotonic()
        ended = run(lambda: loaded(command.run(inputs, out)), seconds=900)
        if ended.kind != "value":
            raise SystemExit(f"{command.name}: failed undisturbed: {ended.text}")
        load(ended.value)
        empty(out)
        started = time.monotonic()
        ended = run(lambda: command.run(inputs, out) and None, seconds=900)
        took = time.monotonic() - started
        wanted = command.content(out)
        if not wanted:
            raise SystemExit(f"{command.name}: there is nothing to compare")
        empty(out)
        print(f"{command.name}: {took:.1f} s undisturbed", file=sys.stderr, flush=True)
        return inputs, out, wanted, took

    def _again(self, command: Command, inputs: Path, out: Path) -> Ended:
        """The same command once more; children of a killed parent may hold the lock for a moment."""
        for _ in range(20):
            ended = run(lambda: command.run(inputs, out) and None, seconds=600)
            if "another process" not in ended.text:
                break
            time.sleep(0.5)
        return ended

    def _judge(self, command: Command, inputs: Path, out: Path, wanted: Any, what: str) -> tuple[str, str]:
        """(outcome, what was said): the same command, undisturbed, has to end with the bytes of a run that nothing disturbed."""
        ended = self._again(command, inputs, out)
        if ended.kind != "value":
            return "lost" if ended.kind == "refused" else "crashed", f"{what}; the same command: {ended.text}"
        found = command.content(out)
        if found != wanted:
            return "silent", f"{what}; the same command ends with other bytes: {_differing(wanted, found)}"
        there = sorted(path.name for path in out.parent.iterdir())
        if (out.parent / "mine.txt").read_text() != "mine" or not {"inputs", "mine.txt"} <= set(there) or len(there) > 3:
            return "outside", f"{what}; {there}"
        return "right", ""

    def kills(self, command: Command, count: int) -> None:
        """SIGKILL to the process or its group, SIGINT and SIGTERM to the process, at random moments; some while it resumes."""
        numbers = self.numbers("kills", command.name, count)
        if not numbers:
            return
        inputs, out, wanted, took = self._undisturbed(command)
        for number in numbers:
            if number != numbers[0] and self.late():
                break
            random_ = self.draw("kills", command.name, number)
            empty(out)
            sent, hung = [], False
            for _ in range(random_.choice((1, 1, 2, 3))):
                signal_ = random_.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM))
                group = signal_ == signal.SIGKILL and random_.random() < 0.5
                moment = random_.uniform(0, took)
                sent.append(f"{signal_.name}{' to the group' if group else ''} after {moment:.2f} s")
                hung = not self._kill(command, inputs, out, signal_, group=group, moment=moment) or hung
            if hung:
                outcome, said = "crashed", f"{', '.join(sent)}: no end after it"
            else:
                outcome, said = self._judge(command, inputs, out, wanted, ", ".join(sent))
            self.add("kills", command.name, number, outcome, said, len(sent))

    def _kill(self, command: Command, inputs: Path, out: Path, sent: signal.Signals, *, group: bool, moment: float) -> bool:
        """Start the command, send the signal, wait for its end; False when there is none within a minute."""
        pid = start(lambda: command.run(inputs, out))
        time.sleep(moment)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, sent) if group else os.kill(pid, sent)
        deadline = time.monotonic() + 60
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return False
            time.sleep(0.003)
        return True

    def errors(self, command: Command, count: int) -> None:
        """The nth call that changes a file fails, once or from then on; then the same command without the fault."""
        numbers = self.numbers("errors", command.name, count)
        if not numbers:
            return
        inputs, out, wanted, _ = self._undisturbed(command)
        counter = Faults(out, 10**9, errno.EIO)
        run(lambda: counter.install() or (command.run(inputs, out) and None), seconds=900)
        calls = max(1, counter.calls)
        for number in numbers:
            if number != numbers[0] and self.late():
                break
            random_ = self.draw("errors", command.name, number)
            empty(out)
            code = random_.choice(ERRORS)
            lasting = code in (errno.ENOSPC, errno.EROFS) and random_.random() < 0.5
            faults = Faults(out, random_.randint(1, calls), code, lasting=lasting)
            ended = run(lambda faults=faults: faults.install() or (command.run(inputs, out) and None), seconds=300)
            what = f"{errno.errorcode[code]} at call {faults.nth} of {calls}{' and after' if lasting else ''}"
            if ended.kind in ("hung", "killed") or (ended.kind == "crashed" and not _system_error(ended.text)):
                outcome, said = "crashed", f"{what}: {ended.text}"
            elif ended.kind == "value" and command.content(out) != wanted:
                outcome, said = "silent", f"{what}: success was reported, {_differing(wanted, command.content(out))}"
            else:
                outcome, said = self._judge(command, inputs, out, wanted, f"{what}: {ended.text}")
            self.add("errors", command.name, number, outcome, said)

    # --------------------------------------------------------------------------------------------------- stores

    def flips(self, stored: Stored, count: int) -> None:
        """A random bit of a random file, the files weighted alike; every tenth time a file is cut or removed instead."""
        numbers = self.numbers("flips", stored.name, count)
        if not numbers:
            return
        folder = empty(self.work / f"flips-{stored.name.replace(' ', '-').replace('/', '-')}")
        folder.mkdir(parents=True)
        made = run(lambda: str(stored.make(folder)), seconds=900)
        if made.kind != "value":
            raise SystemExit(f"{stored.name}: could not be made: {made.text}")
        path = Path(made.value)
        load(run(lambda: loaded(stored.read(path)), seconds=300).value or [])
        before = run(lambda: stored.read(path), seconds=300)
        if before.kind != "value":
            raise SystemExit(f"{stored.name}: cannot be read undisturbed: {before.text}")
        files = [file for file in stored.files(path) if file.stat().st_size]
        self.deadline = time.monotonic() + self.seconds
        for number in numbers:
            if number != numbers[0] and self.late():
                break
            random_ = self.draw("flips", stored.name, number)
            file = random_.choice(files)
            size = file.stat().st_size
            keep = file.read_bytes()
            if number % 10 == 9:
                if random_.random() < 0.5:
                    file.unlink()
                    what = f"{file.relative_to(folder)} removed"
                else:
                    file.write_bytes(keep[: random_.randrange(size)])
                    what = f"{file.relative_to(folder)} cut"
                ended = run(lambda: stored.read(path), seconds=120, memory=4 << 30)
            else:
                position, bit = random_.randrange(size), random_.randrange(8)
                what = f"{file.relative_to(folder)}, byte {position}, bit {bit}"
                with flipped(file, position, bit):
                    ended = run(lambda: stored.read(path), seconds=120, memory=4 << 30)
            if not file.is_file() or file.read_bytes() != keep:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(keep)
            if ended.kind == "refused":
                outcome, said = "refused", ""
            elif ended.kind != "value":
                outcome, said = "crashed", f"{what}: {ended.kind} {ended.text}"
            elif ended.value == before.value:
                outcome, said = "no effect", ""
            else:
                outcome, said = "silent", f"{what}: other content, no error"
            self.add("flips", stored.name, number, outcome, said)
        shutil.rmtree(folder, ignore_errors=True)

    def files(self, hostile: Hostile) -> None:
        """One file or folder of a stranger, used under limits of time and memory; nothing beside it may change."""
        if not self.numbers("files", hostile.name, 1):
            return
        place = empty(self.work / "hostile")
        (place / "in").mkdir(parents=True)
        (place / "mine.txt").write_text("mine")
        made = run(lambda: hostile.make(place / "in") and None, seconds=300)
        if made.kind != "value":
            raise SystemExit(f"{hostile.name}: could not be made: {made.text}")
        ended = run(lambda: hostile.use(place / "in"), seconds=hostile.seconds, memory=hostile.memory)
        said = f"{ended.kind} {ended.text or json.dumps(ended.value, default=str)}"
        if ended.kind in {"hung", "killed"} or "MemoryError" in ended.text:
            outcome = "over"
        elif ended.kind == "crashed":
            outcome = "crashed"
        elif (place / "mine.txt").read_text() != "mine" or sorted(p.name for p in place.iterdir()) != ["in", "mine.txt"]:
            outcome, said = "outside", str(sorted(p.name for p in place.iterdir()))
        elif not hostile.good(ended):
            outcome = "silent"
        else:
            outcome, said = "right" if ended.kind == "value" else "refused", ""
        self.add("files", hostile.name, 0, outcome, said)
        shutil.rmtree(place, ignore_errors=True)


def _differing(wanted: Any, found: Any) -> str:
    """Names of up to three files that differ."""
    if not isinstance(wanted, dict) or not isinstance(found, dict):
        return "other content"
    names = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
    return ", ".join(map(str, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _system_error(text: str) -> bool:
    """Errors of the operating system reach the command line as they are, which turns them into a message."""
    return text.startswith(("OSError", "PermissionError", "FileNotFoundError", "BlockingIOError"))
