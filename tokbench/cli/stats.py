"""`tokbench stats`: makes, shows and verifies statistics files."""

from __future__ import annotations

import sys
from dataclasses import replace
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
    reading_options,
    reference_is_option,
    root_option,
    say,
    say_left_out,
    size_option,
)
from tokbench.data.reading import ReadOptions
from tokbench.errors import UsageError
from tokbench.io.counts import count_of

if TYPE_CHECKING:
    from tokbench.extractors.network import FeatureExtractor
    from tokbench.metrics.fid_statistics import FidStatistics
    from tokbench.protocol.protocol import Protocol

_FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@click.group(cls=Group)
def stats() -> None:
    """Make, show and verify statistics files (.npz): mean and covariance of a dataset's features.

    The format is that of pytorch-fid and clean-fid (mu, sigma) and of ADM (mu_s, sigma_s for sFID). Use a file with:
    tokbench eval ... --reference FILE.
    """


@stats.command()
@data_option
@reading_options("first")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write (.npz).")
@click.option(
    "--network", default="inception-2015-12-05", show_default=True, help="Network that extracts the features."
)
@click.option(
    "--layers", default="2048", show_default=True, help="Comma-separated: one pooled layer, optionally with sfid."
)
@limit_option
@size_option
@protocol_option
@device_option
@download_option
@root_option
def make(
    data: str,
    reading: ReadOptions,
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
    """Compute the feature statistics of a dataset and write them to a file."""
    from tokbench.data.dataset import open_dataset
    from tokbench.evaluation.reference_statistics import measure
    from tokbench.extractors.specs import EXTRACTORS
    from tokbench.protocol.protocol import load_protocol

    if network not in EXTRACTORS:
        raise UsageError(f"unknown network '{network}'; available: {', '.join(EXTRACTORS)}")
    wanted = [layer.strip() for layer in layers.split(",") if layer.strip()]
    if not wanted or len([layer for layer in wanted if layer != "sfid"]) > 1:
        raise UsageError(f"--layers {layers}: a file contains one pooled layer and, optionally, sfid")
    if out.suffix != ".npz":
        raise UsageError(f"--out {out}: the file name must end in .npz")
    rules = load_protocol(protocol)
    extractor = _extractor(network, rules, device, allow_download)
    dataset = open_dataset(data, rules, size, limit, root, reading)
    say_left_out(dataset.left_out)
    with progress_bar() as progress:
        computed = measure(dataset, extractor, wanted, progress)
    for name, reason in dataset.unreadable:
        say(f"unreadable image {name}: {reason}")
    computed.save(out)
    assert computed.count is not None, "measured statistics know their number of images"
    sized = f" of {computed.width}x{computed.height} px" if computed.size else ""
    click.echo(f"wrote {out}: {count_of(computed.count, 'image')}{sized}, layers {', '.join(wanted)}")
    if dataset.unreadable:
        sys.exit(1)


@stats.command("show")
@_FILE
def show_(file: Path) -> None:
    """Print the content of a statistics file and its recorded origin."""
    from tokbench.metrics.fid_statistics import load_statistics

    found = load_statistics(file)
    for layer, (mean, covariance) in found.layers.items():
        click.echo(f"layer {layer}: {len(mean)} dimensions, mean {mean.mean():.6g}, trace {covariance.trace():.6g}")
    for key, value in found.to_dict().items():
        text = ", ".join(f"{part} {choice}" for part, choice in value.items()) if isinstance(value, dict) else value
        if key != "layers":
            click.echo(f"{key:10} {'not recorded' if text is None else text}")
    click.echo(f"{'sha256':10} {found.sha256}")


@stats.command()
@_FILE
@click.option("--data", help="Images to use [default: the dataset recorded in the file].")
@reading_options()
@reference_is_option
@limit_option
@size_option
@click.option("--protocol", help="Evaluation protocol [default: the protocol recorded in the file].")
@device_option
@download_option
@root_option
def verify(
    file: Path,
    data: str | None,
    reading: ReadOptions,
    reference_is: str | None,
    limit: int | None,
    size: int | None,
    protocol: str | None,
    device: str | None,
    allow_download: bool,
    root: Path | None,
) -> None:
    """Recompute a statistics file from its images, size and protocol, and compare.

    Exit status: 1 if the statistics differ by more than 1e-5.
    """
    from tokbench.data.dataset import open_dataset
    from tokbench.evaluation.reference_statistics import measure
    from tokbench.extractors.specs import EXTRACTORS
    from tokbench.metrics.fid_statistics import TOLERANCE, largest_differences, load_statistics
    from tokbench.metrics.frechet import frechet_distance
    from tokbench.protocol.protocol import load_protocol

    found = load_statistics(file).assume(reference_is)
    if found.network is None or found.network not in EXTRACTORS:
        raise UsageError(f"{file} does not record its network; give it with --reference-is")
    if (data := data or found.dataset) is None:
        raise UsageError(f"{file} does not record its images; give them with --data")
    rules = load_protocol(protocol or found.protocol or "tokbench")
    if found.protocol_sha256 not in (None, rules.sha256):
        raise UsageError(
            f"{file} was made under a different version of protocol {rules.name}; give that version with --protocol"
        )
    if found.preparation and found.preparation != rules.reference_preparation:
        raise UsageError(f"{file} was not made under protocol {rules.name}; give its protocol with --protocol")
    size = _size(found, rules, size)
    extractor = _extractor(found.network, rules, device, allow_download)
    description = extractor.describe()
    for layer in found.layers:
        # Raises an error if the file was made with another network, input or precision.
        found.moments(extractor.name, description.get("input"), "float32", extractor.sha256, layer)
    reading = replace(reading, first=found.sampling != "even")
    dataset = open_dataset(data, rules, size, limit, root, reading)
    if limit is None and found.count and found.count < len(dataset):
        dataset = open_dataset(data, rules, size, found.count, root, reading)
    with progress_bar() as progress:
        again = measure(dataset, extractor, list(found.layers), progress)
    differs = False
    for layer, theirs in found.layers.items():
        mean, covariance = largest_differences(theirs, again.layers[layer])
        distance = frechet_distance(*theirs, *again.layers[layer])
        click.echo(
            f"layer {layer}: largest relative difference of means {mean:.1e}, of covariances {covariance:.1e}, "
            f"Fréchet distance {distance:.3g}"
        )
        differs |= max(mean, covariance) > TOLERANCE
    if found.data and found.data != again.data:
        click.echo(f"pixels: {found.data[:12]} in the file, {again.data and again.data[:12]} here")
        if found.size is None and found.preparation is None:
            click.echo("the file does not record the size of its images; if it is a different one, give it with --size")
        differs = True
    click.echo("different" if differs else "equal")
    if differs:
        sys.exit(1)


def _size(found: FidStatistics, protocol: Protocol, requested: int | None) -> int | None:
    """Return the image size recorded in the file, or `requested` if none is. Raises UsageError if the two differ."""
    if found.size is None:
        return requested
    width, height = found.size
    if requested is not None and found.size != (requested, requested):
        raise UsageError(f"{found.name} was made from images of {width}x{height} px; remove --size {requested}")
    return width if width == height and protocol.crop != "none" else None


def _extractor(name: str, protocol: Protocol, device: str | None, allow_download: bool) -> FeatureExtractor:
    """Return the extractor of a network, with the input preparation of the protocol for Inception."""
    from tokbench.extractors.pool import ExtractorPool
    from tokbench.metric_names import INCEPTION

    path = protocol.features.input if name == INCEPTION else None
    return ExtractorPool(choose_device(device), allow_download).get(name, path)
