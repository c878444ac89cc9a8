"""`tokbench audit`: evaluates one tokenizer under every evaluation convention."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import click

from tokbench.api.device import choose_device
from tokbench.cli.options import (
    batch_size_option,
    data_option,
    device_option,
    download_option,
    limit_option,
    progress_bar,
    reading_options,
    reference_is_option,
    reference_mismatch_option,
    reference_option,
    root_option,
    say,
    say_left_out,
    size_option,
)
from tokbench.data.reading import ReadOptions
from tokbench.errors import UsageError
from tokbench.io.counts import count_of


@click.command()
@click.argument("adapter")
@data_option
@reading_options("first", "pair")
@click.option("--claim", metavar="METRIC=VALUE", help="A reported value to explain, for example rfid=0.92.")
@click.option(
    "--metrics", "metric_names", help="Comma-separated metric names [default: psnr,ssim,lpips,rfid,rfid_768]."
)
@limit_option
@size_option
@reference_option
@reference_is_option
@reference_mismatch_option
@batch_size_option
@device_option
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the bootstrap and of sampling decoders.",
)
@download_option
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON object to stdout.")
@root_option
def audit(
    adapter: str,
    data: str,
    reading: ReadOptions,
    claim: str | None,
    metric_names: str | None,
    limit: int | None,
    size: int | None,
    reference: Path | None,
    reference_is: str | None,
    reference_mismatch: str | None,
    batch_size: int,
    device: str | None,
    seed: int,
    allow_download: bool,
    as_json: bool,
    root: Path | None,
) -> None:
    """Measure how a tokenizer's metrics change with each choice of the evaluation protocol.

    One pass over the images evaluates the default protocol, each choice varied separately, and every named protocol.
    With --claim, protocols are ranked by how close their value is to the claimed one. Protocols that compare with a
    statistics file need --reference.

    Exit status: 0 on success, 1 if the adapter failed or an image could not be read, 2 for wrong usage.
    """
    from tokbench.analysis import audit_report
    from tokbench.analysis.audit import DEFAULT_METRICS
    from tokbench.analysis.audit import audit as run
    from tokbench.data.dataset import open_dataset
    from tokbench.evaluation.config import Context, EvalConfig
    from tokbench.metric_names import METRICS
    from tokbench.metrics import registry
    from tokbench.metrics.fid_statistics import load_statistics
    from tokbench.protocol.protocol import TOKBENCH
    from tokbench.results.reference_note import describe_statistics
    from tokbench.tokenizers.registry import load_adapter

    claimed = audit_report.read_claim(claim) if claim else None
    names = list(DEFAULT_METRICS) if metric_names is None else registry.choose_for("reconstruct", metric_names)
    if claimed and claimed[0] not in names:
        names += registry.choose_for("reconstruct", claimed[0])
    if unaffected := [name for name in names if name not in METRICS or not METRICS[name].reads]:
        raise UsageError(f"no protocol choice affects {', '.join(unaffected)}")
    device = choose_device(device)
    statistics = (
        load_statistics(reference).assume(reference_is).allow_mismatch(reference_mismatch) if reference else None
    )
    dataset = open_dataset(data, TOKBENCH, size, limit, root, reading)
    say_left_out(dataset.left_out)
    with redirect_stdout(sys.stderr), progress_bar() as progress:
        loaded = load_adapter(adapter, device, root, allow_download, reading)
        rows = run(
            loaded,
            dataset,
            EvalConfig(tuple(names), batch_size=batch_size, seed=seed, device=device, statistics=statistics),
            Context(allow_download=allow_download, progress=progress),
            claimed=claimed[0] if claimed else None,
        )
    for name, reason in dataset.unreadable:
        say(f"unreadable image {name}: {reason}")
    printed = set()
    for note in (note for row in rows for note in row.notes):
        reason = note.partition(": ")[2]
        if reason not in printed:  # choices often share a reason; each is printed once
            printed.add(reason)
            say(f"skipped {note}")
    count = len(dataset) - len(dataset.unreadable)
    match = audit_report.match_claim(rows, *claimed, count) if claimed else None
    if as_json:
        click.echo(json.dumps(audit_report.facts(rows, match), indent=1))
    else:
        assert dataset.shape is not None
        height, width = dataset.shape
        reference_text = "".join(
            f" Protocol {protocol.name} compares with "
            f"{describe_statistics(statistics.describe(protocol, dataset.shape))}."
            for protocol in [row.choice.protocol for row in rows]
            if statistics is not None and protocol.reference == "statistics"
        )
        click.echo(
            f"{loaded.name} on {dataset.name}: {count_of(count, 'image')} of {width}x{height} px, "
            f"pixels {dataset.sha256[:8]}. "
            "Parentheses show the change from the default; ± is half the width of the 95 % interval over images."
            f"{reference_text}\n"
        )
        click.echo(audit_report.audit_table(rows, names, count), nl=False)
        if match:
            click.echo(f"\nClaim: {match.name} = {match.value:g}\n")
            click.echo(audit_report.verdict(match), nl=False)
    if dataset.unreadable:
        sys.exit(1)
