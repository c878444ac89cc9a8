"""The reference of distributions: no statistics of another size, preparation or network without a word, in results and
in tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import run_eval

from tokbench.analysis.compare import differences, made_otherwise
from tokbench.data.dataset import Dataset, open_dataset
from tokbench.errors import NotApplicable, UsageError
from tokbench.evaluation.reference_statistics import measure
from tokbench.evaluation.sample_plan import SamplePlan
from tokbench.evaluation.tasks import Generate, Task, Truncate
from tokbench.extractors.pool import ExtractorPool
from tokbench.metric_names import INCEPTION
from tokbench.metrics.fid_statistics import FidStatistics, load_statistics
from tokbench.protocol.protocol import TOKBENCH, Protocol, load_protocol, protocols
from tokbench.results.leaderboard import groups
from tokbench.results.markdown import context
from tokbench.results.result import Result, load
from tokbench.tokenizers.registry import load_adapter

ORIGINAL = TOKBENCH.with_changes("whole", reference="original")


def quiet(what: str, done: int, total: int) -> None:
    return None


@pytest.fixture
def opened(photo_folder: Path) -> Callable[..., Dataset]:
    """The six photos of 256 px, at a size and under a protocol."""
    return lambda size=None, protocol=TOKBENCH: open_dataset(str(photo_folder), protocol, size)


@pytest.fixture
def file(opened: Callable[..., Dataset], networks: ExtractorPool, tmp_path: Path) -> Callable[..., FidStatistics]:
    """A statistics file of them, of the 64-d layer of the stand-in network, read again."""

    def made(size: int | None = None, protocol: Protocol = TOKBENCH, name: str = "ref.npz") -> FidStatistics:
        network = networks.get(INCEPTION, protocol.features.input)
        measure(opened(size, protocol), network, ["64"], quiet).save(tmp_path / name)
        return load_statistics(tmp_path / name)

    return made


@pytest.fixture
def run(opened: Callable[..., Dataset], networks: ExtractorPool) -> Callable[..., Result]:
    """A codec's result against a statistics file."""

    def made(
        statistics: FidStatistics | None, size: int | None = None, protocol: Protocol = TOKBENCH, **options: Any
    ) -> Result:
        names = ["psnr", "rfid_64"]
        (result,) = run_eval(
            [load_adapter("jpeg.q10")], opened(size, protocol), names, networks=networks, statistics=statistics,
            **options,
        )  # fmt: skip
        assert result.error is None
        assert "psnr" in result.metrics
        return result

    return made


def foreign(path: Path, **arrays: np.ndarray) -> FidStatistics:
    """A file as pytorch-fid writes it, without any facts about itself."""
    np.savez(path, mu=np.zeros(64), sigma=np.eye(64), **arrays)
    return load_statistics(path)


def test_a_file_says_what_made_it(file: Callable[..., FidStatistics]) -> None:
    made = file(128)
    assert made.size == (128, 128)
    assert made.preparation == {
        "reference": "crop", "crop": "centre", "filter": "bicubic", "library": "pillow", "antialias": True,
    }  # fmt: skip
    assert (made.protocol, made.protocol_sha256, made.count) == ("tokbench", TOKBENCH.sha256, 6)
    whole = file(128, ORIGINAL)
    assert (whole.size, whole.preparation) == (None, {"reference": "original"})


def test_another_size_is_refused_or_stated(
    file: Callable[..., FidStatistics], run: Callable[..., Result], tmp_path: Path
) -> None:
    """Statistics of 256 px for images of 64 px: rFID-768 was 1.549 where 0.541 was right, without a word."""
    other, own = file(), file(64, name="own.npz")
    refused = run(other, 64)
    assert "rfid_64" not in refused.metrics
    for part in ("ref.npz", "256x256 px", "64x64 px", "--size 256", "--reference-mismatch size"):
        assert part in refused.skipped["rfid_64"]
    assert refused.provenance["reference"]["mismatch"] == ["size"]
    assert "statistics file" not in context([refused])  # nothing in that table was compared

    assert "rfid_64" in run(own, 64).metrics
    with pytest.raises(UsageError, match="only size and protocol can differ"):
        other.allow_mismatch("size,network")
    stated = run(other.allow_mismatch("size"), 64)
    assert stated.metrics["rfid_64"]["value"] != run(own, 64).metrics["rfid_64"]["value"]
    path, _ = stated.save(tmp_path / "results")
    facts = load(path).provenance["reference"]
    assert (facts["width"], facts["height"], facts["mismatch"], facts["stated"]) == (256, 256, ["size"], [])
    assert "6 images of photos" in context([stated])
    assert "of 256x256 px under protocol `tokbench`; size not that of the images here" in context([stated])
    assert run(other.allow_mismatch("size,protocol")).provenance["reference"]["mismatch"] == []


@pytest.mark.parametrize(
    ("made_under", "used_under", "differ"),
    [
        ("adm", "tokbench", "crop adm), but this run prepares references with tokbench (crop centre)"),
        ("tokbench", "torch-fidelity", "crop centre, filter bicubic, library pillow, antialias true"),
        ("vtbench", "tokbench", "filter lanczos), but this run prepares references with tokbench (filter bicubic)"),
        ("tokbench", "adm", "use that protocol (--protocol)"),
        ("adm", "llamagen", None),
        ("adm", "rae", None),
        ("pytorch-fid", "torch-fidelity", None),
        ("cosmos", "clean-fid", None),
        ("titok", "titok", None),
    ],
)
def test_another_preparation_is_refused_or_stated(made_under: str, used_under: str, differ: str | None) -> None:
    """Only settings that change the references' pixels count: not the rounding of reconstructions or PSNR."""
    first, second = load_protocol(made_under), load_protocol(used_under)
    made = FidStatistics(
        {}, protocol=first.name, protocol_sha256=first.sha256, preparation=first.reference_preparation,
        width=64, height=64,
    )  # fmt: skip
    if differ is None:
        made.check(second, (64, 64))
        return
    with pytest.raises(NotApplicable) as caught:
        made.check(second, (64, 64))
    assert f"with protocol {made_under} (" in str(caught.value)
    assert differ in str(caught.value)
    made.allow_mismatch("protocol").check(second, (64, 64))
    with pytest.raises(NotApplicable, match="32x48 px"):
        made.allow_mismatch("protocol").check(second, (48, 32))


def test_rounding_counts_where_it_changes_references() -> None:
    """8-bit crops stay what they are unless a trip through [-1, 1] costs them levels; resized tensors do not."""
    prepared = {name: load_protocol(name).reference_preparation for name in protocols()}
    assert [name for name, facts in prepared.items() if "rounding" in facts] == []
    signed = TOKBENCH.with_changes("signed", features__rounding="truncate-signed").reference_preparation
    assert signed["rounding"] == "truncate-signed"
    tensor = TOKBENCH.with_changes("tensor", library="tensor", rounding="truncate").reference_preparation
    assert tensor["rounding"] == "truncate"


def test_a_file_of_an_earlier_version_still_loads(file: Callable[..., FidStatistics], tmp_path: Path) -> None:
    """It names its protocol, and neither size nor preparation: another protocol is not known to be alike."""
    made = file(64)
    fields = {key: value for key, value in made.to_dict().items() if key not in ("width", "height", "preparation")}
    mean, covariance = made.layers["64"]
    np.savez(tmp_path / "old.npz", mu=mean, sigma=covariance, tokbench=np.array(json.dumps(fields)))
    old = load_statistics(tmp_path / "old.npz")
    assert (old.size, old.preparation, old.protocol_sha256) == (None, None, TOKBENCH.sha256)
    old.check(TOKBENCH, (32, 32))
    with pytest.raises(NotApplicable, match=r"with protocol tokbench \(b767ff1a\), but this run uses adm \(5b2543ac\)"):
        old.check(load_protocol("adm"))
    assert old.assume("any:any:any:64").stated == ("size",)
    with pytest.raises(NotApplicable, match="64x64 px"):
        old.assume("any:any:any:64").check(TOKBENCH, (32, 32))


def test_unstated_reference_properties_are_marked_unknown(run: Callable[..., Result], tmp_path: Path) -> None:
    made = foreign(tmp_path / "fid.npz")
    alone = f"{INCEPTION}:tf1:float32"
    with pytest.raises(NotApplicable, match="as in :256:adm"):
        made.moments(INCEPTION, "tf1", "float32", "0" * 64, "64")
    unknown = run(made.assume(alone), 64)
    assert "rfid_64" in unknown.metrics
    assert "size and protocol of the reference are unknown" in context([unknown])
    assert "network, input, precision stated by the user, not by the file" in context([unknown])

    known = run(made.assume(f"{alone}:64:tokbench"), 64)
    assert known.provenance["reference"]["stated"] == ["network", "input", "precision", "size", "protocol"]
    assert known.provenance["reference"]["protocol"] == "tokbench"
    assert "of 64x64 px under protocol `tokbench`" in context([known])
    assert "unknown number of images" in context([known])
    assert "size of the reference is unknown" in context([run(made.assume(f"{alone}:any:tokbench"), 64)])
    for statement, reason in (("32:tokbench", "32x32 px"), ("64x32:tokbench", "64x32 px"), ("64:adm", "crop adm")):
        assert reason in run(made.assume(f"{alone}:{statement}"), 64).skipped["rfid_64"]


def test_statements_that_cannot_be_meant(file: Callable[..., FidStatistics], tmp_path: Path) -> None:
    made, unknown = file(64), foreign(tmp_path / "fid.npz")
    net = f"{INCEPTION}:tf1:float32"
    for statement in ("x", "a:b", "a::c", f"{net}:0", f"{net}:-1", f"{net}:64px", f"{net}:64x0", f"{net}:64:"):
        with pytest.raises(UsageError, match="--reference-is"):
            unknown.assume(statement)
    with pytest.raises(UsageError, match="no protocol 'tokbanch'"):
        unknown.assume(f"{net}:64:tokbanch")
    for statement, reason in (
        (f"{net}:32", "its size is 64x64 px, not 32x32 px"),
        (f"{net}:64:adm", "its protocol is tokbench, not adm"),
        (f"{INCEPTION}:clean:float32", "its input is tf1, not clean"),
    ):
        with pytest.raises(UsageError, match=reason):
            made.assume(statement)
    assert made.assume(f"{net}:64:tokbench").stated == made.assume("any:any:any").stated == ()


def test_images_beside_statistics_say_their_size(run: Callable[..., Result], tmp_path: Path) -> None:
    """ADM's reference batches hold both."""
    made = foreign(tmp_path / "adm.npz", arr_0=np.zeros((3, 48, 32, 3), np.uint8))
    assert made.size == (32, 48)
    assert foreign(tmp_path / "x.npz", arr_0=np.zeros((3, 48))).size is None
    assert "32x48 px" in run(made.assume(f"{INCEPTION}:tf1:float32"), 64).skipped["rfid_64"]


@pytest.mark.parametrize(
    ("fact", "value", "reason"),
    [
        ("network", "pt_inception-2015-12-05-6726825d", "tokbench stats make --network"),
        ("input", "half-pixel", "features.input"),
        ("precision", "bfloat16", "run with that --precision"),
        ("weights", "1" * 64, "made with weights 111111111111..."),
    ],
)
def test_another_network_is_never_compared_with(
    file: Callable[..., FidStatistics], run: Callable[..., Result], fact: str, value: str, reason: str
) -> None:
    made = replace(file(64), **{fact: value}).allow_mismatch("size,protocol")
    assert reason in run(made, 64).skipped["rfid_64"]


@pytest.mark.slow
def test_a_run_in_another_precision_is_named(
    photo_folder: Path, cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ("--out", tmp_path / "s.npz")
    assert (
        cli(
            "stats",
            "make",
            "--data",
            photo_folder,
            "--network",
            "efficientnet-lite0",
            "--layers",
            "pooled",
            "--size",
            64,
            *out,
        ).exit_code
        == 0
    )
    monkeypatch.setenv("TOKBENCH_BACKEND", "torch")  # OpenVINO refuses bfloat16 on CPUs without instructions for it
    done = cli(
        "eval", "jpeg.q10", "--data", photo_folder, "--size", 64, "--metrics", "fd_efficientnet", "--json",
        "--precision", "bfloat16", "--reference", tmp_path / "s.npz", "--out", tmp_path,
    )  # fmt: skip
    (facts,) = json.loads(done.stdout)
    assert "precision float32, but this run uses bfloat16" in facts["skipped"]["fd_efficientnet"]


def test_a_cache_does_not_answer_for_another_statement(
    file: Callable[..., FidStatistics], run: Callable[..., Result], tmp_path: Path
) -> None:
    """What was measured where a mismatch was stated is no answer where it is not, nor the other way round."""
    other = file()
    for statistics, measured in (
        (other.allow_mismatch("size"), True),
        (other, False),
        (other.allow_mismatch("size"), True),
    ):
        result = run(statistics, 64, cache=tmp_path / "cache")  # its checkpoint is not discarded
        assert ("rfid_64" in result.metrics) == measured


def test_samples_of_another_size(
    tiles: Path, file: Callable[..., FidStatistics], networks: ExtractorPool, tmp_path: Path
) -> None:
    samples = load_adapter(f"images:{tiles}")

    def sampled(statistics: FidStatistics) -> Result:
        places = SamplePlan("ref", TOKBENCH, 40, None, key=statistics.sha256)
        (made,) = run_eval([samples], places, ["gfid_64"], task=Generate(), networks=networks, statistics=statistics)
        assert made.error is None
        return made

    refused, own = sampled(file(64)), sampled(file(32, name="own.npz"))
    assert "64x64 px, but this run's are 32x32 px" in refused.skipped["gfid_64"]
    assert "40 samples of 32x32 px against the statistics file own.npz, unpaired" in context([own])
    assert "of 32x32 px under protocol `tokbench`)" in context([own])
    stated = sampled(file(64).allow_mismatch("size"))
    assert "gfid_64" in stated.metrics
    assert "size not that of the images here" in context([stated])


@pytest.mark.slow
@pytest.mark.parametrize("task", [Task(), Truncate((1,))], ids=["reconstruct", "truncate"])
def test_tables_name_a_reference_that_is_not_the_crops(
    task: Task, opened: Callable[..., Dataset], file: Callable[..., FidStatistics], networks: ExtractorPool
) -> None:
    adapter, names = load_adapter("one_d_piece.n32"), ["psnr", "rfid_64"]
    for protocol, statistics, phrase in (
        (TOKBENCH, None, None),
        (TOKBENCH, file(64), "compared with the statistics file ref.npz ("),
        (ORIGINAL, None, "compared with the whole original files."),
    ):
        dataset = opened(64, protocol)
        (made,) = run_eval([adapter], dataset, names, task=task, networks=networks, statistics=statistics)
        assert made.error is None
        assert ("compared with" in context([made])) == (phrase is not None)
        assert phrase is None or phrase in context([made])
        alone = replace(made, metrics={"psnr": made.metrics["psnr"]})
        assert "compared with" not in context([alone])


def test_perturbed_tokens_have_their_reference_named() -> None:
    provenance = {
        "data": {"width": 64, "height": 64, "sha256": "d" * 64, "own_size": 64, "limit": None, "available": 9},
        "protocol": {"name": "tokbench", "sha256": "b" * 64}, "adapter": {"kind": "discrete"}, "metrics": {},
        "reference": {"file": "s.npz", "sha256": "f" * 64, "count": 9},
    }  # fmt: skip
    made = Result("a", "set", "perturb", 9, {"pfid_768.a0.3d0.3": {"value": 1.0}}, {}, [], provenance)
    assert "compared with the statistics file s.npz (ffffffff: 9 images; size and protocol" in context([made])


def test_numbers_of_other_references_are_not_compared(
    file: Callable[..., FidStatistics], run: Callable[..., Result]
) -> None:
    first, second = run(file(64), 64), run(file(128, name="b.npz").allow_mismatch("size"), 64)
    assert len(groups([first, second])) == 2
    assert {gap.number for gap in differences(first, second)} == {"psnr", "exact"}
    assert "rfid_64" in made_otherwise(first, second)
    assert len(groups([first, run(None, 64)])) == 2


@pytest.mark.slow
def test_verify_takes_the_size_from_the_file(cli: Callable[..., Any], photo_folder: Path, tmp_path: Path) -> None:
    made = tmp_path / "s.npz"
    common = ("--data", photo_folder, "--limit", 3)
    options = ("--network", "efficientnet-lite0", "--layers", "pooled", "--size", 64, "--out", made)
    done = cli("stats", "make", *common, *options)
    assert "3 images of 64x64 px" in done.stdout, done.output
    shown = cli("stats", "show", made).stdout
    assert "width      64" in shown
    assert "preparation antialias True, crop centre, filter bicubic, library pillow, reference crop" in shown
    done = cli("stats", "verify", made, "--data", photo_folder)
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "equal"), done.output
    done = cli("stats", "verify", made, *common, "--size", 32)
    assert done.exit_code == 2
    assert "64x64 px; remove --size 32" in done.output
    done = cli("stats", "verify", made, *common, "--protocol", "adm")
    assert done.exit_code == 2
    assert "a different version of protocol" in done.output


def test_the_command_line_states_and_names(
    cli: Callable[..., Any],
    photo_folder: Path,
    tmp_path: Path,
    networks: ExtractorPool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Files that people download, each with one option; an audit names its reference too."""
    monkeypatch.setattr("tokbench.extractors.pool.ExtractorPool", lambda *_: networks)
    monkeypatch.setattr("tokbench.evaluation.config.ExtractorPool", lambda *_: networks)
    foreign(tmp_path / "VIRTUAL.npz")
    common = ("--data", photo_folder, "--size", 64)
    reference = ("--reference", tmp_path / "VIRTUAL.npz", "--reference-is", f"{INCEPTION}:tf1:float32:256:adm")
    out = ("--metrics", "rfid_64", "--protocol", "adm", "--out", tmp_path / "out")
    done = cli("eval", "jpeg.q10", *common, *reference, *out)
    assert "skipped rfid_64: VIRTUAL.npz was made from images of 256x256 px" in done.stderr
    done = cli("eval", "jpeg.q10", *common, *reference, *out, "--reference-mismatch", "size")
    assert done.exit_code == 0, done.output
    assert "of 256x256 px under protocol `adm`" in done.stdout
    assert "size not that of the images here" in done.stdout
    for option in ("--reference-mismatch", "--reference-is"):
        done = cli("eval", "jpeg.q10", *common, option, "size")
        assert done.exit_code == 2
        assert "require --reference with a statistics file" in done.output
    done = cli("audit", "jpeg.q10", *common, *reference, "--metrics", "rfid_64")
    assert "Protocol adm compares with the statistics file VIRTUAL.npz" in done.stdout, done.output
    assert "skipped rfid_64" in done.stderr
    done = cli("audit", "jpeg.q10", *common, *reference, "--metrics", "rfid_64", "--reference-mismatch", "size")
    assert "skipped rfid_64" not in done.stderr
