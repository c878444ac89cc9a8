"""`tokbench audit`: one tokenizer under every convention."""

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
    reference_is_option,
    reference_mismatch_option,
    reference_option,
    root_option,
    say,
    say_left_out,
    size_option,
    split_option,
)
from tokbench.errors import UsageError


@click.command()
@click.argument("adapter")
@data_option
@split_option
@click.option("--claim", metavar="METRIC=VALUE", help="A number that somebody reports, as in rfid=0.92.")
@click.option("--metrics", "metric_names", help="Comma-separated [default: psnr,ssim,lpips,rfid,rfid_768].")
@limit_option
@size_option
@reference_option
@reference_is_option
@reference_mismatch_option
@batch_size_option
@device_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@download_option
@click.option("--json", "as_json", is_flag=True, help="Print to stdout nothing but a JSON object.")
@root_option
def audit(
    adapter: str,
    data: str,
    split: str | None,
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
    """How a tokenizer's numbers move with each choice of an evaluation, from one pass over the images.

    First the default protocol, then each choice varied by itself, then every named protocol. With --claim the protocols
    are ranked by how close they come. Give --reference for those that compare with a statistics file.
    """
    from tokbench.analysis import audit_report
    from tokbench.analysis.audit import PRESENT
    from tokbench.analysis.audit import audit as run
    from tokbench.data.dataset import open_dataset
    from tokbench.extractors.pool import ExtractorPool
    from tokbench.metric_names import METRICS
    from tokbench.metrics import registry
    from tokbench.metrics.fid_statistics import load_statistics
    from tokbench.protocol.protocol import TOKBENCH
    from tokbench.results.reference_note import file
    from tokbench.tokenizers.registry import load_adapter

    asked = audit_report.read_claim(claim) if claim else None
    names = list(PRESENT) if metric_names is None else registry.choose_for(False, metric_names)
    if asked and asked[0] not in names:
        names += registry.choose_for(False, asked[0])
    if others := [name for name in names if name not in METRICS or not METRICS[name].reads]:
        raise UsageError(f"no protocol changes {', '.join(others)}")
    device = choose_device(device)
    statistics = load_statistics(reference).assumed(reference_is).allowing(reference_mismatch) if reference else None
    dataset = open_dataset(data, TOKBENCH, size, limit, root, split=split)
    say_left_out(dataset.left_out)
    with redirect_stdout(sys.stderr), progress_bar() as progress:
        loaded = load_adapter(adapter, device, root, allow_download)
        rows = run(
            loaded,
            dataset,
            names,
            claimed=asked[0] if asked else None,
            networks=ExtractorPool(device, allow_download),
            statistics=statistics,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
    for name, reason in dataset.bad:
        say(f"bad image {name}: {reason}")
    told = set()
    for note in (note for row in rows for note in row.notes):
        reason = note.partition(": ")[2]
        if reason not in told:  # once for all choices that share it
            told.add(reason)
            say(f"skipped {note}")
    count = len(dataset) - len(dataset.bad)
    claim_made = audit_report.judge(rows, *asked, count) if asked else None
    if as_json:
        click.echo(json.dumps(audit_report.facts(rows, claim_made), indent=1))
    else:
        assert dataset.shape is not None
        height, width = dataset.shape
        compared = "".join(
            f" Protocol {protocol.name} compares with {file(statistics.described(protocol, dataset.shape))}."
            for protocol in [row.choice.protocol for row in rows]
            if statistics is not None and protocol.reference == "statistics"
        )
        click.echo(
            f"{loaded.name} on {dataset.name}: {count:,} images of {width}x{height} px, pixels {dataset.sha256[:8]}. "
            f"In brackets: the change from the default. ± is half of the 95 % interval over images.{compared}\n"
        )
        click.echo(audit_report.audit_table(rows, names, count), nl=False)
        if claim_made:
            click.echo(f"\nClaim: {claim_made.name} = {claim_made.value:g}\n")
            click.echo(audit_report.verdict(claim_made), nl=False)
    if dataset.bad:
        sys.exit(1)
