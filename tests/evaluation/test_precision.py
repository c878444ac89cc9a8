"""bfloat16 by request: named in the result with what it changed, and never mixed with float32."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from factories import run_eval
from PIL import Image, ImageOps

from tokbench.analysis.compare import differences, made_otherwise
from tokbench.data.dataset import open_dataset
from tokbench.data.stream import CHUNK
from tokbench.errors import NotApplicable, UsageError
from tokbench.evaluation.sample_plan import SamplePlan
from tokbench.evaluation.tasks import Generate
from tokbench.extractors.backend import Backend, Compiled, Precision
from tokbench.extractors.pool import ExtractorPool
from tokbench.metrics.fid_statistics import FidStatistics
from tokbench.metrics.frechet import Frechet
from tokbench.protocol.protocol import TOKBENCH
from tokbench.results.cells import cells
from tokbench.results.result import Result
from tokbench.tokenizers.registry import load_adapter

pytestmark = pytest.mark.slow

LIMIT = CHUNK + 4


@pytest.fixture(scope="module", autouse=True)
def units() -> Iterator[None]:
    """On a processor without units for bfloat16, whose emulation would take minutes, features are at least rounded to
    it: all of this module is about what becomes of them."""
    with pytest.MonkeyPatch.context() as patched:
        try:
            Backend(precision="bfloat16")
        except UsageError:
            compile = Backend.compile

            def rounding(self: Backend, module: torch.nn.Module, example: torch.Tensor) -> Compiled:
                run = compile(self, module, example)
                if self.precision == "float32":
                    return run
                return lambda images: [output.bfloat16().float() for output in run(images)]

            patched.setattr("tokbench.extractors.backend._openvino_capabilities", lambda: ("FP32", "BF16"))
            patched.setattr(Backend, "compile", rounding)
        yield


def measured(precision: Precision, cache: Path | None) -> Result:
    (result,) = run_eval(
        [load_adapter("jpeg.q10")],
        open_dataset("samples", TOKBENCH, limit=LIMIT),
        ["psnr", "fd_efficientnet"],
        networks=ExtractorPool(precision=precision),
        cache=cache,
    )
    assert result.error is None
    return result


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Results of one adapter in both precisions, measured with one cache."""
    cache = tmp_path_factory.mktemp("cache")
    return {precision: measured(precision, cache) for precision in ("float32", "bfloat16")}


def test_the_result_says_what_the_precision_changed(both: dict[str, Result]) -> None:
    whole, half = both["float32"], both["bfloat16"]
    assert (whole.provenance["precision"], half.provenance["precision"]) == ("float32", "bfloat16")
    facts = half.provenance["metrics"]["fd_efficientnet"]
    assert facts["precision"] == "bfloat16"
    effect = facts["effect of the precision"]
    exact, _, rest = effect.partition(" in float32, ")
    assert rest.endswith(f" in bfloat16, on the first {CHUNK} images")
    (first,) = run_eval([load_adapter("jpeg.q10")], open_dataset("samples", TOKBENCH, limit=CHUNK), ["fd_efficientnet"])
    assert float(exact) == pytest.approx(first.metrics["fd_efficientnet"]["value"], rel=1e-5)
    assert float(rest.split()[0]) == pytest.approx(float(exact), rel=0.5)  # ReLU6 and depthwise filters suffer most
    assert rest.split()[0] != exact
    assert "effect of the precision" not in whole.provenance["metrics"]["fd_efficientnet"]
    assert "psnr" not in half.provenance["metrics"]  # it reads no network


@pytest.mark.parametrize("batch_size", [16, CHUNK + 4])
def test_both_values_are_those_of_the_first_images(batch_size: int, tmp_path: Path) -> None:
    """Not of the first images against all references, whatever the batches are; an interrupted run resumes there."""

    def run(limit: int, precision: Precision, cache: Path | None = None) -> Result:
        (result,) = run_eval(
            [load_adapter("jpeg.q10")],
            open_dataset("samples", TOKBENCH, limit=limit),
            ["fd_efficientnet"],
            networks=ExtractorPool(precision=precision),
            batch_size=batch_size,
            cache=cache,
        )
        assert result.error is None
        return result

    half = run(2 * CHUNK + 4, "bfloat16", tmp_path)
    effect = half.provenance["metrics"]["fd_efficientnet"]["effect of the precision"]
    exact, _, rest = effect.partition(" in float32, ")
    for printed, precision in ((exact, "float32"), (rest.split()[0], "bfloat16")):
        alone = run(CHUNK, precision)  # type: ignore[arg-type]
        assert float(printed) == pytest.approx(alone.metrics["fd_efficientnet"]["value"], rel=1e-4), precision
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tokbench.evaluation.tasks.reconstruct", None)  # nothing is reconstructed again
        again = run(2 * CHUNK + 4, "bfloat16", tmp_path)
    assert again.provenance["metrics"] == half.provenance["metrics"]


def test_results_in_one_reduced_precision_are_compared(both: dict[str, Result]) -> None:
    """The effect of the precision differs between results and is no setting; the precision is one."""
    whole, half = both["float32"], both["bfloat16"]
    (other,) = run_eval(
        [load_adapter("jpeg.q50")],
        open_dataset("samples", TOKBENCH, limit=LIMIT),
        ["psnr", "fd_efficientnet"],
        networks=ExtractorPool(precision="bfloat16"),
    )
    effects = [result.provenance["metrics"]["fd_efficientnet"]["effect of the precision"] for result in (half, other)]
    assert effects[0] != effects[1]
    assert made_otherwise(half, other) == []
    assert "fd_efficientnet" in {one.number for one in differences(half, other)}
    assert [label for label, column in cells([half, other])[0] if column.field == "fd_efficientnet"] == [""]
    assert "fd_efficientnet" in made_otherwise(whole, half)


def test_samples_say_it_too(tiles: Path, tmp_path: Path) -> None:
    """By the first references, whatever the number of all; the same from the cache of an earlier run."""
    samples = tmp_path / "samples"
    samples.mkdir()
    for path in sorted(tiles.iterdir())[:36]:
        ImageOps.solarize(Image.open(path)).save(samples / path.name)

    def made(precision: Precision, limit: int | None) -> Result:
        data = open_dataset(str(tiles), TOKBENCH, limit=limit)
        (result,) = run_eval(
            [load_adapter(f"images:{samples}")],
            SamplePlan(data.name, TOKBENCH, limit or 36, data),
            ["fd_efficientnet", "precision_recall_efficientnet"],
            task=Generate(),
            networks=networks[precision],
            cache=tmp_path / "cache",
        )
        assert result.error is None
        return result

    networks = {precision: ExtractorPool(precision=precision) for precision in ("float32", "bfloat16")}
    half, first = made("bfloat16", None), made("float32", CHUNK)
    assert made("bfloat16", None).provenance["metrics"] == half.provenance["metrics"]
    for number in ("fd_efficientnet", "precision_efficientnet"):
        exact, _, rest = half.provenance["metrics"][number]["effect of the precision"].partition(" in float32, ")
        assert rest.endswith(f" in bfloat16, on the first {CHUNK} images")
        assert float(exact) == pytest.approx(first.metrics[number]["value"], rel=1e-5)
    assert half.num_images == 36


def test_numbers_without_a_network_are_the_same(both: dict[str, Result]) -> None:
    assert both["float32"].metrics["psnr"] == both["bfloat16"].metrics["psnr"]


def test_cached_features_of_one_precision_do_not_serve_the_other(both: dict[str, Result], tmp_path: Path) -> None:
    alone = measured("bfloat16", tmp_path)
    assert alone.metrics == both["bfloat16"].metrics
    again = measured("bfloat16", tmp_path)
    assert again.metrics == alone.metrics
    kinds = list((tmp_path / "features").iterdir())
    assert len(kinds) == 2  # bfloat16, and the few in float32 that the comparison takes


def test_a_result_of_another_precision_is_replaced(both: dict[str, Result], tmp_path: Path) -> None:
    both["float32"].save(tmp_path)
    _, replaced = both["bfloat16"].save(tmp_path)
    assert replaced


def test_statistics_of_another_precision_are_refused() -> None:
    network = ExtractorPool(precision="bfloat16").get("efficientnet-lite0")
    network.request_layer("pooled")
    moments = (torch.zeros(1280).numpy(), torch.eye(1280).numpy())
    made = FidStatistics({"pooled": moments}, network.name, None, "float32", network.sha256)
    with pytest.raises(NotApplicable, match="was made with precision float32, but this run uses bfloat16"):
        Frechet("fd_efficientnet", network, "pooled", TOKBENCH, made)


def test_the_command_line(cli, photo_folder: Path, tmp_path: Path) -> None:
    done = cli(
        "eval", "jpeg.q10", "--data", photo_folder, "--metrics", "fd_efficientnet", "--precision", "bfloat16", "--out",
        tmp_path,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "bfloat16" in next(tmp_path.rglob("*.json")).read_text()
