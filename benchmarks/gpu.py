"""Packs data and code for a GPU machine, and the trained weights for the way back. `gpu.sh` describes the whole."""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[1]
CODE = ("tokbench", "adapters", "datasets", "benchmarks/gpu.py", "benchmarks/gpu.sh", "pyproject.toml")


def pack(data: str, out: Path, limit: int | None, pixels: bool, size: int, extra: Sequence[Path]) -> list[Path]:
    """Write archives of at most `size` bytes with the code, without weights, and the training images; return them.

    pixels: whether the images are packed as the uint8 pixels that the training sees (in lossless WebP), not as the
    files of the dataset. extra: further files, such as wheels, which become extra/<name>.
    """
    files: list[tuple[str, bytes | Path]] = [(f"checkout/{name}", ROOT / name) for name in _code()]
    files += [(f"extra/{path.name}", path) for path in extra]
    folder, parts = _parts(data, limit, pixels, size // 2)
    for number, part in enumerate(parts):
        files.append((f"data/{folder}/train-{number}-of-{len(parts)}.parquet", part))
    return write_archives(out, "ship", [[file] for file in files], size)


def _code() -> list[str]:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z", *CODE],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    names = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    return [name for name in names if not name.endswith(".safetensors")]


def _parts(data: str, limit: int | None, pixels: bool, size: int) -> tuple[str, list[bytes]]:
    """Return a name for the data, and Parquet files of at most about `size` bytes of images each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts: list[bytes] = []
    rows: list[dict[str, object]] = []
    name, found = _images(data, limit, pixels)

    def close() -> None:
        columns = {"image": [{"bytes": row["bytes"], "path": row["path"]} for row in rows]}
        labels = {} if any(row["label"] is None for row in rows) else {"label": [row["label"] for row in rows]}
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns | labels), buffer, row_group_size=1000, compression="none")
        parts.append(buffer.getvalue())
        rows.clear()

    used = 0
    for path, content, label in found:
        if rows and used + len(content) > size:
            close()
            used = 0
        rows.append({"bytes": content, "path": path, "label": label})
        used += len(content) + 64
    close()
    return name, parts


def _images(data: str, limit: int | None, pixels: bool) -> tuple[str, Iterator[tuple[str, bytes, int | None]]]:
    """Return a dataset's name, and for each image its name, its bytes as a file, and its label."""
    from PIL import Image

    from tokbench.data.dataset import open_dataset
    from tokbench.data.sources.npz import NpzSource
    from tokbench.protocol.protocol import load_protocol
    from tokbench.training.data import load_training_data

    dataset = open_dataset(data, load_protocol("tokbench"), None, limit)
    if not pixels and not isinstance(dataset.source, NpzSource):
        labels = dataset.source.labels() or {}
        return dataset.name, (
            (name, dataset.source.read(position), labels.get(name)) for position, name in enumerate(dataset.names)
        )
    trained = load_training_data(dataset)

    def encoded() -> Iterator[tuple[str, bytes, int | None]]:
        for number, array in enumerate(trained.pixels.permute(0, 2, 3, 1).numpy()):
            buffer = io.BytesIO()
            Image.fromarray(array).save(buffer, "WEBP", lossless=True, method=0)
            label = None if trained.labels is None else int(trained.labels[number])
            yield f"{number:08d}.webp", buffer.getvalue(), label

    return dataset.name, encoded()


def collect(zoo: Path, out: Path, most: int, size: int) -> list[Path]:
    """Write the weights and training records below `zoo` into at most `most` archives of at most `size` bytes.

    The archives are larger if there is more to store. The files of one adapter are in one archive.
    """
    groups: dict[str, list[tuple[str, bytes | Path]]] = {}
    for record in sorted(zoo.glob("adapters/*/*.training.json")):
        variant = record.name.removesuffix(".training.json")
        names = [
            record,
            *record.parent.glob(f"{variant}.safetensors"),
            *record.parent.glob(f"{variant}-*-of-*.safetensors"),
        ]
        groups[str(record)] = [(path.relative_to(zoo).as_posix(), path) for path in names]
    if not groups:
        return []
    total = sum(_size(file) for group in groups.values() for file in group)
    largest = max(sum(map(_size, group)) for group in groups.values())
    return write_archives(out, "zoo", list(groups.values()), max(size, -(-total // most) + largest), most)


def _size(file: tuple[str, bytes | Path]) -> int:
    """Return the bytes that a file takes in a tar archive, with its header and padding."""
    content = file[1]
    length = len(content) if isinstance(content, bytes) else content.stat().st_size
    return 1024 + -(-length // 512) * 512


def write_archives(
    out: Path, name: str, groups: Sequence[Sequence[tuple[str, bytes | Path]]], size: int, most: int | None = None
) -> list[Path]:
    """Write groups of files into tar archives `<name>-1.tar` ... of at most `size` bytes, few by a greedy search.

    Raises SystemExit if one group is larger than `size`, or if there would be more than `most` archives.
    """
    margin = 20 * 512  # the end of an archive
    bins: list[tuple[int, list[tuple[str, bytes | Path]]]] = []
    for group in sorted(groups, key=lambda group: -sum(map(_size, group))):
        need = sum(map(_size, group))
        if need + margin > size:
            raise SystemExit(f"{group[0][0]} takes {need:,} bytes, more than an archive of {size:,} bytes holds")
        place = next((place for place, (used, _) in enumerate(bins) if used + need + margin <= size), None)
        if place is None:
            bins.append((need, list(group)))
        else:
            bins[place] = (bins[place][0] + need, [*bins[place][1], *group])
    if most is not None and len(bins) > most:
        raise SystemExit(f"{len(bins)} archives would be needed, more than {most}")
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob(f"{name}-*.tar"):
        old.unlink()
    written = []
    for number, (_, files) in enumerate(bins, 1):
        path = out / f"{name}-{number}.tar"
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
            for inside, content in files:
                if isinstance(content, Path):
                    archive.add(content, inside, recursive=False)
                else:
                    about = tarfile.TarInfo(inside)
                    about.size = len(content)
                    archive.addfile(about, io.BytesIO(content))
        written.append(path)
    return written


def unpack(archives: Sequence[Path], folder: Path) -> list[Path]:
    """Extract archives into a folder; members that would lie outside it are refused."""
    for path in archives:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    return list(archives)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name: str, run: Callable[[argparse.Namespace], list[Path]]) -> argparse.ArgumentParser:
        made = commands.add_parser(name)
        made.set_defaults(run=run)
        return made

    packing = command(
        "pack", lambda o: pack(o.data, o.out, o.limit, o.pixels, int(o.size * MIB), [Path(path) for path in o.extra])
    )
    packing.add_argument("data", help="name or path of a dataset")
    packing.add_argument("out", type=Path, help="folder for the archives")
    packing.add_argument("--limit", type=int, help="use only the first images")
    packing.add_argument("--pixels", action="store_true", help="pack decoded pixels, not the files of the dataset")
    packing.add_argument("--size", type=float, default=60, help="largest archive in MiB")
    packing.add_argument("--extra", nargs="*", default=[], help="further files, for example wheels")
    collecting = command("collect", lambda o: collect(o.zoo, o.out, o.most, int(o.size * MIB)))
    collecting.add_argument("zoo", type=Path, help="folder that `tokbench train --out` wrote")
    collecting.add_argument("out", type=Path, help="folder for the archives")
    collecting.add_argument("--most", type=int, default=4, help="largest number of archives")
    collecting.add_argument("--size", type=float, default=16, help="size of an archive in MiB, exceeded only if needed")
    unpacking = command("unpack", lambda o: unpack(o.archives, o.folder))
    unpacking.add_argument("folder", type=Path)
    unpacking.add_argument("archives", nargs="+", type=Path)
    options = parser.parse_args()
    for path in options.run(options):
        print(f"{path}: {path.stat().st_size / MIB:.1f} MiB")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
