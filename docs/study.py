"""Write the study of docs/generators.md from results/, and draw its data; `--check` only compares the text.

python docs/study.py
python docs/study.py samples     # eight samples of every generator that is trained here, and the previews of d_ar
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import torch

from tokbench.analysis.correlation import (
    OF_GENERATORS,
    OF_TOKENIZERS,
    TokenizerGeneratorPair,
    conclusion,
    correlations,
    markdown,
    pairs,
)
from tokbench.errors import TokbenchError
from tokbench.evaluation.seeds import image_seeds
from tokbench.report.static_figures import LABEL, SCALE, SIZE, labelled_rows, plotting
from tokbench.results.columns import column_of
from tokbench.results.leaderboard import read_all
from tokbench.tokenizers.base import Generator
from tokbench.tokenizers.registry import adapter_files, load_adapter, read_variant

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("", "-cfg1")
"""Each prior's own scale of guidance, and none."""
DATASET, FAMILIES = "tiny-imagenet", ("gpt", "maskgit", "flow")
WIDE, MARKS = 4, "osd"
"""Panels side by side, and marks of tokenizers, ten colours each."""
LEAST_DRAWN = 3
"""Tokenizers from which on there is a picture."""
COUNT, STRIDE = 8, 25
"""Samples of a row, of every so-many-th class."""


def study() -> tuple[str, dict[str, list[TokenizerGeneratorPair]]]:
    """The text, and the pairs by family of the prior."""
    files, text = adapter_files(ROOT), ""
    configs = {name: read_variant(toml) for name, toml in files.items()}
    unlike = {name for name, one in configs.items() if "prior" in one or "schedule" in one.get("model", {})}
    results = [one for one in read_all(ROOT / "results") if one.adapter not in unlike]  # not the standard prior
    tasks = [(family, end) for family in FAMILIES for end in TASKS]
    found = {family + end: pairs(results, family, DATASET, f"generate{end}") for family, end in tasks}
    for family, own in found.items():
        if not own:
            continue
        names = ", ".join(f"`{one.tokenizer}`" for one in own)
        text += f"\n`{family}` over {names}."
        if len(own) >= LEAST_DRAWN:
            text += f"\n\n![Each number of these tokenizers against gFID](study-{family}.svg)"
        if made := correlations(own):
            text += f"\n\n{markdown(made)}"
            text += f"\n{drawn}" if (drawn := conclusion(made)) else ""
        else:
            count = "One tokenizer" if len(own) == 1 else f"{len(own)} tokenizers"
            text += f" {count} cannot show a rank correlation, so nothing is concluded about rFID or pFID yet.\n"
    return text or "No generator is measured yet.\n", found


def published() -> str:
    """The same correlations over the pairs that others report, one table for each of their generators."""
    reported = tomllib.loads((ROOT / "docs" / "published_pairs.toml").read_text("utf-8"))["reported"]
    numbers: dict[str, dict[str, float]] = {}
    generated: dict[str, dict[str, dict[str, float]]] = {}
    for one in reported:
        tokenizer, *prior = one["of"].removesuffix(", ImageNet 256").split(", ", 1)
        if prior:
            generated.setdefault(prior[0], {}).setdefault(tokenizer, {})[one["number"]] = one["value"]
        else:
            numbers.setdefault(tokenizer, {})[one["number"]] = one["value"]
    text = ""
    for prior, values in generated.items():
        found = [TokenizerGeneratorPair(name, prior, None, numbers[name], own) for name, own in values.items()]
        made = correlations(found)
        text += f"\n{prior}, over {', '.join(values)}.\n\n{markdown(made)}\n{conclusion(made)}"
    return text


def scatter(found: list[TokenizerGeneratorPair], target: Path) -> None:
    """Draw a panel for each number that at least three tokenizers have, against the generators' first number."""
    number = next((name for name in OF_GENERATORS if any(name in one.generated for one in found)), None)
    drawn = [name for name in OF_TOKENIZERS if sum(name in one.numbers for one in found) >= LEAST_DRAWN]
    if number is None or not drawn:
        return
    pyplot = plotting()
    lines = -(-len(drawn) // WIDE)
    figure, grid = pyplot.subplots(
        lines, WIDE, figsize=(2.6 * WIDE + 1.8, 2.4 * lines), layout="constrained", squeeze=False
    )
    axes = list(grid.flat)
    for axis, name in zip(axes, drawn, strict=False):
        for place, one in enumerate(found):
            if name in one.numbers and number in one.generated:
                axis.plot(
                    one.numbers[name], one.generated[number], MARKS[place // 10 % len(MARKS)],
                    color=f"C{place % 10}", label=one.tokenizer,
                )  # fmt: skip
        axis.set_xlabel(column_of(name)[1].title)
    for axis in axes[len(drawn) :]:
        axis.set_axis_off()
    for axis in grid[:, 0]:
        axis.set_ylabel(column_of(number)[1].title)
    known = {label: mark for axis in axes for mark, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend([known[name] for name in sorted(known)], sorted(known), loc="outside right center", frameon=False)
    figure.savefig(target, metadata={"Date": None})


@torch.inference_mode()
def samples(target: Path) -> None:
    """Draw the same classes and seeds for every generator at its own scale, and the intermediate images of d_ar."""
    rows: list[tuple[str, torch.Tensor]] = []
    labels = torch.arange(COUNT) * STRIDE
    both = image_seeds(0, range(COUNT), 2)
    seeds, decoding = both[::2], both[1::2]
    for name, toml in adapter_files(ROOT).items():
        if "guidance" not in read_variant(toml):
            continue
        try:
            model = load_adapter(name, root=ROOT).model
        except TokbenchError:  # not trained
            continue
        assert isinstance(model, Generator)
        assert model.module is not None
        model.module.eval()
        low, high = model.spec.range
        tokens = model.sample(labels, seeds, model.guidance)
        rows.append(
            (f"{name}\ncfg {model.guidance:g}", (model.tokenizer.decode(tokens, decoding) - low) / (high - low))
        )
        if stream := getattr(getattr(model.tokenizer, "model", None), "stream", None):
            previews = list(stream(model.tokenizer.vectors(tokens), decoding))  # type: ignore[attr-defined]
            for share in (25, 50, 75):
                shown = previews[len(previews) * share // 100 - 1]
                rows.append((f"after {share} % of\nits tokens", (shown - low) / (high - low)))
    canvas = labelled_rows([(label, images.clamp(0, 1)) for label, images in rows])
    canvas.crop((0, 0, LABEL + COUNT * (SIZE * SCALE + 4), canvas.height)).save(target, quality=90, method=6)


def main() -> int:
    if sys.argv[1:] == ["samples"]:
        samples(ROOT / "docs" / "samples.webp")
        return 0
    page = ROOT / "docs" / "generators.md"
    text, found = study()
    before = after = page.read_text("utf-8")
    for marker, content in (("study", text), ("published", published())):
        part = f"<!-- {marker} -->\n{content.lstrip()}<!-- /{marker} -->"
        after = re.sub(f"<!-- {marker} -->\n.*?<!-- /{marker} -->", lambda _, part=part: part, after, flags=re.DOTALL)
    if "--check" in sys.argv:
        return int(after != before)
    page.write_text(after, encoding="utf-8")
    for family, own in found.items():
        if len(own) >= LEAST_DRAWN:
            scatter(own, ROOT / "docs" / f"study-{family}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
