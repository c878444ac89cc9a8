"""timm's networks: their classes by name, and weights files that are never unpickled."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError
from PIL import Image
from safetensors.torch import save_file

from tokbench.errors import MissingWeights
from tokbench.pruning.classifier.models import load_classifier, open_labelled

timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'tokbench[prune]'")


def test_imagenets_folders_are_known_to_timms_networks(tmp_path: Path) -> None:
    """Classes are matched by WordNet id, also if only a few occur and sorted order is not the order of the 1000."""
    torch.manual_seed(0)
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "own.safetensors")
    subject = load_classifier(f"timm:vit_tiny_patch16_224@{tmp_path / 'own.safetensors'}", "cpu")
    for place, folder in enumerate(["n02102040", "n01440764", "n03888257"]):  # springer, tench, parachute
        (tmp_path / "ten" / folder).mkdir(parents=True)
        pixels = np.full((16, 16, 3), place, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "ten" / folder / "a.png")
    found = open_labelled(str(tmp_path / "ten"), subject, None).labels
    assert found.by_name == {"n01440764/a.png": 0, "n02102040/a.png": 217, "n03888257/a.png": 701}
    assert "timm's imagenet-1k" in found.rule


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({self.path!r}, 'w').close()",)


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".pt"])
@pytest.mark.parametrize("harmful", [True, False])
def test_nothing_but_tensors_is_unpickled(tmp_path: Path, suffix: str, harmful: bool) -> None:
    """Files that would run code and files with other objects are both refused; the message names the object."""
    more = Harmful(tmp_path / "it-ran") if harmful else SimpleNamespace(epochs=3)
    path = tmp_path / f"own{suffix}"
    torch.save({"model": timm.create_model("vit_tiny_patch16_224").state_dict(), "args": more}, path)
    named = "builtins.exec" if harmful else "types.SimpleNamespace"
    with pytest.raises(MissingWeights, match=rf"contains Python objects other than tensors \({named}\)"):
        load_classifier(f"timm:vit_tiny_patch16_224@{path}", "cpu")
    assert not (tmp_path / "it-ran").exists()


def test_nothing_but_tensors_is_unpickled_of_what_comes_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"weight": Harmful(tmp_path / "it-ran")}, path)

    def download(*given: Any, filename: str = "", **more: Any) -> str:
        if filename.endswith(".safetensors"):
            raise EntryNotFoundError("there is none")
        return str(path)

    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
    with pytest.raises(MissingWeights, match="weights_only=True blocked loading"):
        load_classifier("timm:vit_tiny_patch16_224", "cpu", allow_download=True)
    assert not (tmp_path / "it-ran").exists()
