"""One contender of the benchmark: `python benchmarks/jobs.py NAME REFERENCE IMAGES WEIGHTS` prints its metrics."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def tokbench(reference: str, images: str, weights: str, *options: str) -> dict[str, float]:
    """Run the tokbench command with WEIGHTS as the FID network."""
    from click.testing import CliRunner

    from tokbench.cli import main

    file = _register_weights(weights)
    command = ["eval", f"images:{images}", "--data", reference, "--metrics", "rfid,psnr,ssim,lpips", "--json", "--out"]
    done = CliRunner().invoke(main, [*command, str(file.parent / "results"), *options])
    if done.exit_code:
        raise SystemExit(done.output)
    (facts,) = json.loads(done.stdout)
    numbers = {name: entry["value"] for name, entry in facts["metrics"].items()}
    return {"fid": numbers["rfid"], "psnr": numbers["psnr"], "ssim": numbers["ssim"], "lpips": numbers["lpips"]}


def _register_weights(weights: str) -> Path:
    """Register this file as tokbench's FID network, whether it is the published one or not."""
    from tokbench import metric_names
    from tokbench.io import hashing
    from tokbench.weights import registry

    file, before = Path(weights), registry.search_dirs
    registry.KNOWN_WEIGHTS[metric_names.INCEPTION] = (
        registry.WeightFile(file.name, hashing.sha256_of(file), "the benchmark"),
    )
    registry.search_dirs = lambda: [file.parent, *before()]
    return file


def torch_fidelity(reference: str, images: str, weights: str) -> dict[str, float]:
    """Compute FID with torch-fidelity, and the pair metrics with lpips and scikit-image."""
    from torch_fidelity import calculate_metrics

    found = calculate_metrics(
        input1=images, input2=reference, fid=True, cuda=False, verbose=False, batch_size=16,
        feature_extractor_weights_path=weights, save_cpu_ram=True, cache=False,
    )  # fmt: skip
    return {"fid": found["frechet_inception_distance"]} | pairs(reference, images)


def pytorch_fid(reference: str, images: str, weights: str) -> dict[str, float]:
    """Compute FID with pytorch-fid, which resizes differently, and the pair metrics with lpips and scikit-image."""
    import torch
    from pytorch_fid import fid_score, inception

    state = torch.load(weights, weights_only=True)
    inception.load_state_dict_from_url = lambda *args, **kwargs: state  # the same file, with the same parameter names
    fid = fid_score.calculate_fid_given_paths([images, reference], 16, "cpu", 2048, num_workers=2)
    return {"fid": float(fid)} | pairs(reference, images)


def pairs(reference: str, images: str) -> dict[str, float]:
    """Compute PSNR and SSIM with scikit-image and LPIPS (AlexNet) with lpips, in batches of 16."""
    import lpips
    import numpy as np
    import torch
    from PIL import Image
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    from tokbench.extractors.pool import ExtractorPool

    network = lpips.LPIPS(
        net="alex", pnet_rand=True, verbose=False
    )  # loads the linear heads without downloading a trunk
    ours: Any = ExtractorPool().get("lpips-alex")
    network.net.load_state_dict(ours.trunk.net.state_dict())  # the trunk that tokbench found
    network.eval()
    names = sorted(path.name for path in Path(reference).iterdir())
    psnr, ssim, distance = [], [], []
    for start in range(0, len(names), 16):
        sides = [
            [np.asarray(Image.open(Path(folder) / name).convert("RGB")) for name in names[start : start + 16]]
            for folder in (reference, images)
        ]
        for x, y in zip(*sides, strict=True):
            psnr.append(peak_signal_noise_ratio(x, y, data_range=255))
            ssim.append(
                structural_similarity(
                    x, y, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
                )
            )
        first, second = (torch.from_numpy(np.stack(side)).permute(0, 3, 1, 2) / 127.5 - 1 for side in sides)
        with torch.inference_mode():
            distance += network(first, second).flatten().tolist()
    return {"psnr": float(np.mean(psnr)), "ssim": float(np.mean(ssim)), "lpips": float(np.mean(distance))}


def bare(reference: str, images: str, weights: str, *, precision: str = "float32", sides: int = 2) -> dict[str, float]:
    """Run only tokbench's forward passes, on noise: a lower bound for any pipeline with these networks."""
    import torch

    from tokbench.extractors.network import CHUNK
    from tokbench.extractors.pool import ExtractorPool
    from tokbench.metric_names import INCEPTION

    _register_weights(weights)
    networks = ExtractorPool(precision=precision)  # type: ignore[arg-type]
    inception, lpips = networks.get(INCEPTION), networks.get("lpips-alex")
    inception.request_layer("2048")
    count = len(list(Path(reference).iterdir()))
    noise = (torch.rand(CHUNK, 3, 256, 256) * 255).round() / 255
    inception(noise), lpips(noise)
    compiled_networks = [(network, *next(iter(network._compiled.items()))) for network in (inception, lpips)]
    for network, key, compiled in compiled_networks:
        passes = sides if network is inception else 2
        given = torch.rand(*key[1:])
        for _ in range(passes * -(-count // CHUNK)):
            compiled(given)
    return {}


JOBS = {
    "torch-fidelity": torch_fidelity,
    "pytorch-fid": pytorch_fid,
    "tokbench": tokbench,
    "tokbench bf16": lambda *given: tokbench(*given, "--precision", "bfloat16"),
    "bare": bare,
    "bare, references cached": lambda *given: bare(*given, sides=1),
    "bare bf16": lambda *given: bare(*given, precision="bfloat16"),
    "bare bf16, references cached": lambda *given: bare(*given, precision="bfloat16", sides=1),
}

if __name__ == "__main__":
    print(json.dumps(JOBS[sys.argv[1]](*sys.argv[2:])))
