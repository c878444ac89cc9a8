"""`tokbench stats`: make, show and verify statistics files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokbench.api.device import choose_device
from tokbench.cli.options import (
    Group,
    data_option,
    device_option,
    download_option,
    limit_option,
    progress_bar,
    protocol_option,
    reference_is_option,
    root_option,
    say,
    say_left_out,
    size_option,
    split_option,
)
from tokbench.errors import UsageError

if TYPE_CHECKING:
    from tokbench.extractors.network import FeatureExtractor
    from tokbench.metrics.fid_statistics import FidStatistics
    from tokbench.protocol.protocol import Protocol

_FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@click.group(cls=Group)
def stats() -> None:
    """Statistics files: mean and covariance of a data set's features, to compare distributions with (.npz).

    Read and written in the form of pytorch-fid and clean-fid (mu, sigma) and of ADM (mu_s, sigma_s for sFID). Use one
    with: tokbench eval ... --reference FILE.
    """


@stats.command()
@data_option
@split_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The .npz to write.")
@click.option("--network", default="inception-2015-12-05", show_default=True)
@click.option(
    "--layers", default="2048", show_default=True, help="Comma-separated: one pooled layer, and sfid if you want it."
)
@limit_option
@size_option
@protocol_option
@device_option
@download_option
@root_option
def make(
    data: str,
    split: str | None,
    out: Path,
    network: str,
    layers: str,
    limit: int | None,
    size: int | None,
    protocol: str,
    device: str | None,
    allow_download: bool,
    root: Path | None,
) -> None:
    """Measure a data set and write its statistics."""
    from tokbench.data.dataset import open_dataset
    from tokbench.evaluation.reference_statistics import measure
    from tokbench.extractors.specs import EXTRACTORS
    from tokbench.protocol.protocol import load_protocol

    if network not in EXTRACTORS:
        raise UsageError(f"no network '{network}'; there are {', '.join(EXTRACTORS)}")
    wanted = [layer.strip() for layer in layers.split(",") if layer.strip()]
    if not wanted or len([layer for layer in wanted if layer != "sfid"]) > 1:
        raise UsageError(f"--layers {layers}: one file holds one pooled layer and, beside it, sfid")
    if out.suffix != ".npz":
        raise UsageError(f"--out {out}: the file's name must end in .npz")
    rules = load_protocol(protocol)
    reader = _reader(network, rules, device, allow_download)
    dataset = open_dataset(data, rules, size, limit, root, split=split)
    say_left_out(dataset.left_out)
    with progress_bar() as progress:
        made = measure(dataset, reader, wanted, progress)
    for name, reason in dataset.bad:
        say(f"bad image {name}: {reason}")
    made.save(out)
    sized = f" of {made.width}x{made.height} px" if made.size else ""
    click.echo(f"wrote {out}: {made.count:,} images{sized}, layers {', '.join(wanted)}")
    if dataset.bad:
        sys.exit(1)


@stats.command("show")
@_FILE
def show_(file: Path) -> None:
    """Say what a file holds, and what made it as far as it tells."""
    from tokbench.metrics.fid_statistics import load_statistics

    found = load_statistics(file)
    for layer, (mean, covariance) in found.layers.items():
        click.echo(f"layer {layer}: {len(mean)} dimensions, mean {mean.mean():.6g}, trace {covariance.trace():.6g}")
    for key, value in found.to_dict().items():
        told = ", ".join(f"{part} {choice}" for part, choice in value.items()) if isinstance(value, dict) else value
        if key != "layers":
            click.echo(f"{key:10} {'not told' if told is None else told}")
    click.echo(f"{'sha256':10} {found.sha256}")


@stats.command()
@_FILE
@click.option("--data", help="The images [default: the data set that the file names].")
@split_option
@reference_is_option
@limit_option
@size_option
@click.option("--protocol", help="How images are prepared [default: the protocol that the file names].")
@device_option
@download_option
@root_option
def verify(
    file: Path,
    data: str | None,
    split: str | None,
    reference_is: str | None,
    limit: int | None,
    size: int | None,
    protocol: str | None,
    device: str | None,
    allow_download: bool,
    root: Path | None,
) -> None:
    """Make a file's statistics again from its data, at its size and under its protocol, and compare: exit status 1
    where they differ by more than 1e-5."""
    from tokbench.data.dataset import open_dataset
    from tokbench.evaluation.reference_statistics import measure
    from tokbench.extractors.specs import EXTRACTORS
    from tokbench.metrics.fid_statistics import TOLERANCE, largest_gaps, load_statistics
    from tokbench.metrics.frechet import frechet_distance
    from tokbench.protocol.protocol import load_protocol

    found = load_statistics(file).assumed(reference_is)
    if found.network is None or found.network not in EXTRACTORS:
        raise UsageError(f"{file} does not say which network made it; name it with --reference-is")
    if (data := data or found.dataset) is None:
        raise UsageError(f"{file} does not say which images it was made from; name them with --data")
    rules = load_protocol(protocol or found.protocol or "tokbench")
    if found.protocol_sha256 not in (None, rules.sha256):
        raise UsageError(f"{file} was made under another protocol than today's {rules.name}; give that with --protocol")
    if found.preparation and found.preparation != rules.reference_preparation:
        raise UsageError(f"{file} was not made under protocol {rules.name}; give its own with --protocol")
    size = _size(found, rules, size)
    reader = _reader(found.network, rules, device, allow_download)
    told = reader.told()
    for layer in found.layers:
        found.moments(reader.name, told.get("input"), "float32", reader.sha256, layer)  # refuses what does not fit
    dataset = open_dataset(data, rules, size, limit, root, split=split)
    if limit is None and found.count and found.count < len(dataset):
        dataset = open_dataset(data, rules, size, found.count, root, split=split)
    with progress_bar() as progress:
        again = measure(dataset, reader, list(found.layers), progress)
    differs = False
    for layer, theirs in found.layers.items():
        mean, covariance = largest_gaps(theirs, again.layers[layer])
        distance = frechet_distance(*theirs, *again.layers[layer])
        click.echo(
            f"layer {layer}: largest difference of means {mean:.1e}, of covariances {covariance:.1e} (relative), "
            f"Fréchet distance {distance:.3g}"
        )
        differs |= max(mean, covariance) > TOLERANCE
    if found.data and found.data != again.data:
        click.echo(f"pixels: {found.data[:12]} in the file, {again.data and again.data[:12]} here")
        if found.size is None and found.preparation is None:
            click.echo("the file does not say of which size its images were; where it is not this one, give --size")
        differs = True
    click.echo("differs" if differs else "the same")
    if differs:
        sys.exit(1)


def _size(found: FidStatistics, protocol: Protocol, asked: int | None) -> int | None:
    """The size at which a file's images are prepared again: that which it says. Raises UsageError for another one."""
    if found.size is None:
        return asked
    width, height = found.size
    if asked is not None and found.size != (asked, asked):
        raise UsageError(
            f"{found.name} was made from images of {width}x{height} px, and --size {asked} gives others; leave it out"
        )
    return width if width == height and protocol.crop != "none" else None


def _reader(name: str, protocol: Protocol, device: str | None, allow_download: bool) -> FeatureExtractor:
    from tokbench.extractors.pool import ExtractorPool
    from tokbench.metric_names import INCEPTION

    path = protocol.features.input if name == INCEPTION else None
    return ExtractorPool(choose_device(device), allow_download).get(name, path)
