"""What can be attacked, the four kinds of attack, and the table of outcomes.

A `Command` is killed and interrupted, and has errors injected; a `Stored` thing has its bits flipped; a `Hostile` file is read.
Every draw depends on the seed and the name of what is attacked alone, so that an outcome can be had again (the moment of a kill
also depends on the speed of the machine).
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
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import ERRORS, Ended, Faults, empty, flipped, run, start, tree

BAD = ("lost", "silent", "crashed", "outside", "over")
KINDS = ("kills", "errors", "flips", "files")


@dataclass(frozen=True)
class Command:
    """Something that writes.

    prepare: puts its inputs into an empty folder, once. run: from (inputs, output). content: what has to be equal afterwards.
    """

    name: str
    prepare: Callable[[Path], None]
    run: Callable[[Path, Path], Any]
    content: Callable[[Path], Any] = tree


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
class Tally:
    """Outcomes by kind of attack and by what was attacked."""

    rows: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    signals: int = 0  # sent in all; a round of `kills` sends one to three before the command is left alone

    def add(self, kind: str, name: str, outcome: str, said: str = "") -> None:
        self.rows.setdefault((kind, name), Counter())[outcome] += 1
        if outcome in BAD:
            self.bad.append(f"{kind}, {name}: {outcome}: {' '.join(said.split())[:300]}")

    def total(self, kind: str) -> int:
        return sum(sum(counts.values()) for (of, _), counts in self.rows.items() if of == kind)

    def table(self) -> str:
        """A Markdown table."""
        lines = ["| attack | on | tries | right | refused | no effect | " + " | ".join(BAD) + " |"]
        lines.append("|---|---|" + "---:|" * (4 + len(BAD)))
        for (kind, name), counts in self.rows.items():
            values = [counts.get(key, 0) for key in ("right", "refused", "no effect", *BAD)]
            lines.append(f"| {kind} | {name} | {sum(counts.values())} | " + " | ".join(map(str, values)) + " |")
        return "\n".join(lines)


@dataclass
class Campaign:
    """One target: where to work, the seed, and how many seconds it may take once it is prepared."""

    work: Path
    seed: int
    seconds: float
    tally: Tally
    deadline: float = math.inf

    def draw(self, kind: str, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{kind}/{name}")

    def late(self) -> bool:
        return time.monotonic() > self.deadline

    # ------------------------------------------------------------------------------------------------- commands

    def _place(self, name: str) -> tuple[Path, Path]:
        """(inputs, output) of a command: side by side in a folder of their own, with a file that nobody may touch."""
        place = empty(self.work / name.replace(" ", "-").replace("/", "-"))
        (place / "inputs").mkdir(parents=True)
        (place / "mine.txt").write_text("mine")
        return place / "inputs", place / "out"

    def _undisturbed(self, command: Command) -> tuple[Path, Path, Any, float]:
        inputs, out = self._place(command.name)
        made = run(lambda: command.prepare(inputs), seconds=600)
        if made.kind != "value":
            raise SystemExit(f"{command.name}: its inputs could not be made: {made.text}")
        started = time.monotonic()
        ended = run(lambda: command.run(inputs, out) and None, seconds=600)
        took = time.monotonic() - started
        if ended.kind != "value":
            raise SystemExit(f"{command.name}: failed undisturbed: {ended.text}")
        wanted = command.content(out)
        empty(out)
        self.deadline = time.monotonic() + self.seconds
        return inputs, out, wanted, took

    def _again(self, command: Command, inputs: Path, out: Path) -> Ended:
        """The same command once more; children of a killed parent may hold the lock for a moment."""
        for _ in range(20):
            ended = run(lambda: command.run(inputs, out) and None, seconds=300)
            if "another process" not in ended.text:
                break
            time.sleep(0.5)
        return ended

    def _judge(self, kind: str, command: Command, inputs: Path, out: Path, wanted: Any, what: str) -> None:
        """The same command, undisturbed, has to end with the bytes of a run that nothing disturbed."""
        ended = self._again(command, inputs, out)
        if ended.kind != "value":
            outcome = "lost" if ended.kind == "refused" else "crashed"
            self.tally.add(kind, command.name, outcome, f"{what}; the same command: {ended.text}")
        elif command.content(out) != wanted:
            self.tally.add(kind, command.name, "silent", f"{what}; the same command ends with other bytes")
        elif (out.parent / "mine.txt").read_text() != "mine" or len(list(out.parent.iterdir())) > 3:
            self.tally.add(kind, command.name, "outside", f"{what}; {sorted(p.name for p in out.parent.iterdir())}")
        else:
            self.tally.add(kind, command.name, "right")

    def kills(self, command: Command, count: int) -> None:
        """SIGKILL to the process or its group, SIGINT and SIGTERM to the process, at random moments; some while it resumes."""
        inputs, out, wanted, took = self._undisturbed(command)
        random_ = self.draw("kills", command.name)
        done = 0
        while not done or (done < count and not self.late()):
            empty(out)
            for _ in range(random_.choice((1, 1, 2, 3))):
                sent = random_.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM))
                pid = start(lambda: command.run(inputs, out))
                time.sleep(random_.uniform(0, took))
                group = sent == signal.SIGKILL and random_.random() < 0.5
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, sent) if group else os.kill(pid, sent)
                deadline = time.monotonic() + 60
                while os.waitpid(pid, os.WNOHANG) == (0, 0):
                    if time.monotonic() > deadline:
                        self.tally.add("kills", command.name, "crashed", f"no end after {sent.name}")
                        os.killpg(pid, signal.SIGKILL)
                        os.waitpid(pid, 0)
                        break
                    time.sleep(0.003)
                done += 1
                self.tally.signals += 1
            self._judge("kills", command, inputs, out, wanted, f"{sent.name}{' to the group' if group else ''}")
        shutil.rmtree(out.parent, ignore_errors=True)

    def errors(self, command: Command, count: int) -> None:
        """The nth call that changes a file fails, once or from then on; then the same command without the fault."""
        inputs, out, wanted, _ = self._undisturbed(command)
        random_ = self.draw("errors", command.name)
        counter = Faults(out, 10**9, errno.EIO)
        run(lambda: counter.install() or (command.run(inputs, out) and None), seconds=600)
        calls = max(1, counter.calls)
        for number in range(count):
            if number and self.late():
                break
            empty(out)
            code = random_.choice(ERRORS)
            lasting = code in (errno.ENOSPC, errno.EROFS) and random_.random() < 0.5
            faults = Faults(out, random_.randint(1, calls), code, lasting=lasting)
            ended = run(lambda faults=faults: faults.install() or (command.run(inputs, out) and None), seconds=120)
            what = f"{errno.errorcode[code]} at call {faults.nth} of {calls}{' and after' if lasting else ''}"
            if ended.kind in ("hung", "killed") or (ended.kind == "crashed" and not _system_error(ended.text)):
                self.tally.add("errors", command.name, "crashed", f"{what}: {ended.text}")
            elif ended.kind == "value" and command.content(out) != wanted:
                self.tally.add("errors", command.name, "silent", f"{what}: success was reported")
            else:
                self._judge("errors", command, inputs, out, wanted, f"{what}: {ended.text}")
        shutil.rmtree(out.parent, ignore_errors=True)

    # --------------------------------------------------------------------------------------------------- stores

    def flips(self, stored: Stored, count: int) -> None:
        """A random bit of a random file, the files weighted alike; every tenth time a file is emptied or removed instead."""
        folder = empty(self.work / f"flips-{stored.name.replace(' ', '-').replace('/', '-')}")
        folder.mkdir(parents=True)
        path = stored.make(folder)
        before = run(lambda: stored.read(path), seconds=300)
        if before.kind != "value":
            raise SystemExit(f"{stored.name}: cannot be read undisturbed: {before.text}")
        files, random_ = list(stored.files(path)), self.draw("flips", stored.name)
        self.deadline = time.monotonic() + self.seconds
        for number in range(count):
            if number and self.late():
                break
            file = random_.choice(files)
            size = file.stat().st_size
            if not size:
                continue
            if number % 10 == 9:
                keep = file.read_bytes()
                if random_.random() < 0.5:
                    file.unlink()
                    what = f"{file.relative_to(folder)} removed"
                else:
                    file.write_bytes(keep[: random_.randrange(size)])
                    what = f"{file.relative_to(folder)} cut"
                ended = run(lambda: stored.read(path), memory=4 << 30)
                file.write_bytes(keep)
            else:
                position, bit = random_.randrange(size), random_.randrange(8)
                what = f"{file.relative_to(folder)}, byte {position}, bit {bit}"
                with flipped(file, position, bit):
                    ended = run(lambda: stored.read(path), memory=4 << 30)
            if ended.kind == "refused":
                self.tally.add("flips", stored.name, "refused")
            elif ended.kind != "value":
                self.tally.add("flips", stored.name, "crashed", f"{what}: {ended.kind} {ended.text}")
            elif ended.value == before.value:
                self.tally.add("flips", stored.name, "no effect")
            else:
                self.tally.add("flips", stored.name, "silent", f"{what}: other content, no error")
        shutil.rmtree(folder, ignore_errors=True)

    def files(self, hostile: Hostile) -> None:
        """One file or folder of a stranger, used under limits of time and memory; nothing beside it may change."""
        place = empty(self.work / "hostile")
        (place / "in").mkdir(parents=True)
        (place / "mine.txt").write_text("mine")
        made = run(lambda: hostile.make(place / "in") and None, seconds=300)
        if made.kind != "value":
            raise SystemExit(f"{hostile.name}: could not be made: {made.text}")
        ended = run(lambda: hostile.use(place / "in"), seconds=hostile.seconds, memory=hostile.memory)
        group = hostile.name.partition(":")[0]
        if ended.kind in {"hung", "killed"} or "MemoryError" in ended.text:
            self.tally.add("files", group, "over", f"{hostile.name}: {ended.text}")
        elif ended.kind == "crashed":
            self.tally.add("files", group, "crashed", f"{hostile.name}: {ended.text}")
        elif (place / "mine.txt").read_text() != "mine" or sorted(p.name for p in place.iterdir()) != ["in", "mine.txt"]:
            self.tally.add("files", group, "outside", f"{hostile.name}: {sorted(p.name for p in place.iterdir())}")
        elif not hostile.good(ended):
            self.tally.add(
                "files", group, "silent", f"{hostile.name}: {ended.kind} {ended.text or json.dumps(ended.value, default=str)}"
            )
        else:
            self.tally.add("files", group, "right" if ended.kind == "value" else "refused")
        shutil.rmtree(place, ignore_errors=True)


def _system_error(text: str) -> bool:
    """Errors of the operating system reach the command line as they are, which turns them into a message."""
    return text.startswith(("OSError", "PermissionError", "FileNotFoundError", "BlockingIOError"))
