"""A mutation fuzzer for all files that tokbench reads from outside.

    python fuzz/run.py TARGET --seconds 60 --seed 0

Valid files are made from a photo, mutated, and read. A file must be accepted or rejected with the documented error;
everything else is a defect: another exception, a crash, more than 10 seconds, or more than 4 GiB. Each defect is
printed and its input saved; the exit status is then 1. There is no coverage guidance.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from seeds import ROOT, images, parquets, results, statistics, tars, zips

sys.path.insert(0, str(ROOT))

from tokbench.cli import listing
from tokbench.data.decode import open_rgb, size_of
from tokbench.data.sources.open import open_source
from tokbench.errors import DataError, ResultError, UnreadableImage
from tokbench.metrics.fid_statistics import load_statistics
from tokbench.results import leaderboard, markdown
from tokbench.results.result import load

SECONDS = 10
"""Time limit per file; a longer read is reported as a hang."""

MEMORY = 4 << 30
"""Limit of the address space in bytes; exceeding it is a defect, unless the file is rejected as invalid."""

GROWTH = 256 << 20
"""Bytes by which the resident memory may grow after the first thousand files."""


# Targets read one input; they return True if it was accepted, False if it was rejected with the documented error.


def read_image(data: bytes, place: Path) -> bool:
    rejected = 0
    for read in (size_of, open_rgb):
        try:
            read(data, "x")
        except UnreadableImage:
            rejected += 1
    return not rejected


def _source(suffix: str) -> Callable[[bytes, Path], bool]:
    def read(data: bytes, place: Path) -> bool:
        path = place / f"input{suffix}"
        path.write_bytes(data)
        try:
            source = open_source(path)
        except UnreadableImage:
            raise  # only images may raise this error
        except DataError:
            return False
        source.listing()
        for position, name in enumerate(source.names):
            name.encode()  # the name must be printable
            try:
                source.open(position)
            except UnreadableImage:
                continue
        return True

    return read


def read_result(data: bytes, place: Path) -> bool:
    path, split = place / "r.json", 4 + int.from_bytes(data[:4], "little")
    path.write_bytes(data[4:split])
    path.with_suffix(".npz").write_bytes(data[split:])
    try:
        made = load(path)
    except ResultError:
        return False
    assert len(made.path.parts) == 2 and ".." not in made.path.parts
    listing.show(made).encode()
    markdown.markdown([made]).encode()
    leaderboard.frame([made])
    return True


def read_statistics(data: bytes, place: Path) -> bool:
    path = place / "s.npz"
    path.write_bytes(data)
    try:
        made = load_statistics(path)
    except ResultError:
        return False
    json.dumps(made.to_dict())
    return True


TARGETS: dict[str, tuple[Callable[[], list[bytes]], Callable[[bytes, Path], bool]]] = {
    "image": (images, read_image),
    "parquet": (parquets, _source(".parquet")),
    "tar": (tars, _source(".tar")),
    "zip": (zips, _source(".zip")),
    "result": (results, read_result),
    "statistics": (statistics, read_statistics),
}

_TOKENS = (
    b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0", b"\0\0\0\x80", b"\xff\xff", b"\0\1",
    b"../", b"\\", b"null", b"1e999", b"-1", b"{", b"[", b'"', b"77777777777\0", b"\xff\xd9", b"\xff\xc2", b"IDAT",
    b"NaN", b"true", b"99999999999999999999", b"\\ud800", b"<f8", b"|O", b"(1099511627776,)",
)  # fmt: skip


def mutate(data: bytes, seeds: list[bytes], rng: np.random.Generator) -> bytes:
    made = bytearray(data)
    for _ in range(1 << int(rng.integers(0, 4))):
        size = max(1, len(made))
        place = int(rng.integers(0, size)) if rng.random() < 0.6 else int(rng.integers(0, min(size, 256)))
        if rng.random() < 0.15:
            place = max(0, len(made) - 1 - place)  # zip and Parquet store their metadata at the end
        how = int(rng.integers(0, 8))
        if how <= 1 and place < len(made):
            made[place] ^= 1 << int(rng.integers(0, 8))
        elif how == 2 and place < len(made):
            made[place] = int(rng.integers(0, 256))
        elif how == 3:
            token = _TOKENS[int(rng.integers(0, len(_TOKENS)))]
            made[place : place + len(token)] = token
        elif how == 4:
            token = _TOKENS[int(rng.integers(0, len(_TOKENS)))]
            made[place:place] = token
        elif how == 5:
            count = int(rng.integers(1, 64))
            del made[place : place + count]
        elif how == 6:
            other = seeds[int(rng.integers(0, len(seeds)))]
            start, count = int(rng.integers(0, len(other))), int(rng.integers(1, 512))
            made[place : place + (count if rng.random() < 0.5 else 0)] = other[start : start + count]
        elif rng.random() < 0.2:
            del made[place:]
    return bytes(made)


_VALUES = (
    None,
    True,
    -1,
    0,
    1.5,
    10**400,
    1e308,
    "",
    "../../x",
    "a" * 999,
    "\ud800",
    "\x1b[31m",
    [],
    [[]],
    {},
    {"a": 1},
)


def mutate_result(data: bytes, seeds: list[bytes], rng: np.random.Generator) -> bytes:
    """Mutate the bytes of the JSON or of the .npz, or one value in the JSON."""
    split = 4 + int.from_bytes(data[:4], "little")
    text, beside = data[4:split], data[split:]
    how = rng.random()
    if how < 0.3:
        beside = mutate(beside, seeds, rng)
    elif how < 0.5:
        text = mutate(text, seeds, rng)
    else:
        place = facts = json.loads(text)
        while True:
            key = sorted(place)[int(rng.integers(0, len(place)))]
            if not (isinstance(place[key], dict) and place[key]) or rng.random() < 0.2:
                break
            place = place[key]
        place[key] = _VALUES[int(rng.integers(0, len(_VALUES)))]
        text = json.dumps(facts).encode()
    return struct.pack("<I", len(text)) + text + beside


def with_checksums(target: str, data: bytes, rng: np.random.Generator) -> bytes:
    """Repair the checksums of tar and PNG headers; otherwise nearly every mutation would be rejected by them."""
    made = bytearray(data)
    if target == "tar" and len(made) >= 512 and rng.random() < 0.8:
        for start in range(0, len(made) - 511, 512):
            head = made[start : start + 512]
            if head[257:262] == b"ustar":
                head[148:156] = b" " * 8
                made[start + 148 : start + 156] = b"%06o\0 " % (sum(head) & 0o777777)
    elif made[:8] == b"\x89PNG\r\n\x1a\n" and rng.random() < 0.8:
        at = 8
        while at + 12 <= len(made):
            end = at + 12 + int.from_bytes(made[at : at + 4], "big")
            if end > len(made):
                break
            made[end - 4 : end] = zlib.crc32(made[at + 4 : end - 4]).to_bytes(4, "big")
            at = end
    return bytes(made)


@dataclass
class Found:
    """Counts and defects of one child process."""

    accepted: int = 0
    refused: int = 0
    defects: list[tuple[str, bytes]] = field(default_factory=list)
    grown: int = 0


def resident() -> int:
    """Return the resident memory in bytes; 0 if the platform does not provide it."""
    return (
        int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() if sys.platform == "linux" else 0
    )


def child(target: str, seconds: float, seed: int, start: int, place: Path, report: Path) -> None:
    """Fuzz until the time is over. `place/current` contains the current input, which the parent reads after a crash."""
    warnings.simplefilter("ignore")
    make, read = TARGETS[target]
    seeds, found, first = make(), Found(), 0
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff prints warnings
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(
        signal.SIGALRM, signal.SIG_DFL
    )  # the default ends the process, because a hang in C code cannot be interrupted
    kinds: Counter[str] = Counter()
    until, number = time.monotonic() + seconds, start
    while time.monotonic() < until:
        rng = np.random.default_rng((seed, number))
        change = mutate_result if target == "result" else mutate
        data = with_checksums(target, change(seeds[int(rng.integers(0, len(seeds)))], seeds, rng), rng)
        (place / "current").write_bytes(data)
        signal.alarm(SECONDS)
        try:
            accepted = read(data, place)
            found.accepted += accepted
            found.refused += not accepted
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)
            kind = f"{type(error).__name__}: {str(error)[:100]} ({Path(frames[-1].filename).name}:{frames[-1].lineno})"
            where = f"{type(error).__name__}:{frames[-1].lineno}"
            kinds[where] += 1
            if kinds[where] == 1:
                found.defects.append((kind, data))
        signal.alarm(0)
        number += 1
        if number == start + 1000:
            first = resident()
        if number % 200 == 0:
            report.write_bytes(pickle.dumps((number, found)))
    found.grown = resident() - first if first else 0
    report.write_bytes(pickle.dumps((number, found)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60, help="time to fuzz")
    parser.add_argument("--seed", type=int, default=0, help="seed of the mutations")
    parser.add_argument("--out", type=Path, default=Path("fuzz-defects"), help="folder for inputs that cause defects")
    arguments = parser.parse_args()
    begun, number, total = time.monotonic(), 0, Found()
    with tempfile.TemporaryDirectory() as folder:
        place, report = Path(folder), Path(folder) / "report"
        while (left := arguments.seconds - (time.monotonic() - begun)) > 0.5:
            report.unlink(missing_ok=True)
            pid = os.fork()
            if pid == 0:
                child(arguments.target, left, arguments.seed, number, place, report)
                os._exit(0)
            _, status = os.waitpid(pid, 0)
            reached, found = pickle.loads(report.read_bytes()) if report.exists() else (number, Found())
            total.accepted, total.refused = total.accepted + found.accepted, total.refused + found.refused
            total.defects += found.defects
            total.grown = max(total.grown, found.grown)
            if os.WIFSIGNALED(status):
                name = signal.Signals(os.WTERMSIG(status)).name
                what = f"a hang: more than {SECONDS} s" if name == "SIGALRM" else f"a crash: {name}"
                total.defects.append((what, (place / "current").read_bytes()))
                reached += 200  # skips the inputs since the last report, one of which caused the crash
            elif status:
                raise SystemExit("the fuzzer itself failed")
            number = reached
    spent, read = time.monotonic() - begun, total.accepted + total.refused
    print(
        f"{arguments.target}: {read:,} executions in {spent:.0f} s, {read / spent:,.0f} per second, "
        f"seed {arguments.seed}"
    )
    print(f"  {total.accepted:,} accepted, {total.refused:,} rejected, {len(total.defects)} defects")
    if total.grown > GROWTH:
        print(f"  memory grew by {total.grown >> 20} MiB")
    for i, (what, data) in enumerate(total.defects):
        arguments.out.mkdir(parents=True, exist_ok=True)
        file = arguments.out / f"{arguments.target}-{arguments.seed}-{i}"
        file.write_bytes(data)
        print(f"  DEFECT {what}; input saved as {file}")
    return 1 if total.defects or total.grown > GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
