"""The one mapping from the names of numbers to the columns of tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tokbench.metric_names import EXTENSIONS, is_single_cell
from tokbench.stats.naming import INFINITY


@dataclass(frozen=True)
class Column:
    """A number's name in JSON, its title in tables, its digits there, and whether more is better (None: neither)."""

    field: str
    title: str
    digits: int
    more: bool | None = None

    @property
    def arrow(self) -> str:
        return "" if self.more is None else " ↑" if self.more else " ↓"


_READERS = {
    "": "",
    "_easyocr": " EasyOCR",
    "_parseq": " PARSeq",
    "_insightface": " antelopev2",
    "_buffalo_l": " buffalo_l",
}
"""What ends the numbers of words and faces that another reader than the default one has read."""

MARKED = (
    Column("t_acc", "T-ACC", 4, True),
    Column("t_ned", "T-NED", 4, True),
    Column("cer", "CER", 4, False),
    Column("f_sim", "F-Sim", 4, True),
    Column("f_distance", "face distance", 4, False),
    Column("f_detected", "faces found", 4, True),
    Column("f_rank1", "rank-1 identity", 4, True),
)
_VERSIONS = {"": "", "_ceiling": " ceiling", "_ratio": " / ceiling"}
_SPANS = {"": "", "_all": " (all)", "_curve": ""}


def marked() -> Iterator[Column]:
    """The columns of words and faces, by every reader, with their ceilings and ratios to them."""
    for reader, said in _READERS.items():
        for one in MARKED:
            for version, name in _VERSIONS.items():
                for span, of in _SPANS.items():
                    yield Column(f"{one.field}{version}{span}{reader}", f"{one.title}{said}{name}{of}", 4, one.more)
        yield Column(f"words{reader}", f"words{said}", 0)
        yield Column(f"words_filtered{reader}", f"words filtered{said}", 0)
        yield Column(f"faces{reader}", f"faces{said}", 0)


_IMAGES = (
    Column("psnr", "PSNR", 2, True),
    Column("exact", "exact images", 0, True),
    Column("ssim", "SSIM", 4, True),
    Column("ms_ssim", "MS-SSIM", 4, True),
    Column("lpips", "LPIPS", 4, False),
    Column("lpips_vgg", "LPIPS-VGG", 4, False),
    Column("rfid", "rFID", 3, False),
    Column("rfid_768", "rFID-768", 4, False),
    Column("rfid_192", "rFID-192", 4, False),
    Column("rfid_64", "rFID-64", 4, False),
    Column("sfid", "sFID", 3, False),
    Column("fd_efficientnet", "FD-EfficientNet", 3, False),
    Column("kid", "KID", 6, False),
    Column("kid_768", "KID-768", 6, False),
)


def perturbed() -> Iterator[Column]:
    """The columns of perturbed tokens: `pfid_768` is pFID-768, `nfid` (noise on continuous latents) nFID."""
    for kind in EXTENSIONS.values():
        for one in _IMAGES:
            if name := kind.name(one.field):
                said = one.title.removeprefix("r").replace("FD-", "FID-")
                yield Column(name, f"{kind.letter}{said}{kind.title}", one.digits, one.more)


COLUMNS = (
    Column("tokens_per_image", "tokens/image", 0),
    Column("bits_per_image", "bits/image", 0, False),
    Column("bpp", "bpp", 3, False),
    Column("compression_ratio", "compression ratio", 1, True),
    *_IMAGES,
    Column("gfid", "gFID", 3, False),
    Column("gfid_768", "gFID-768", 4, False),
    Column("gfid_192", "gFID-192", 4, False),
    Column("gfid_64", "gFID-64", 4, False),
    Column("inception_score", "IS", 2, True),
    *(
        Column(f"{one}{suffix}", f"{one}{said}", 4, True)
        for suffix, said in (("", ""), ("_768", "-768"), ("_efficientnet", " EfficientNet"))
        for one in ("precision", "recall")
    ),
    *perturbed(),
    *marked(),
    Column("codebook_usage", "codebook usage", 4, True),
    Column("perplexity", "perplexity", 1, True),
    Column("codebook_entropy", "codebook entropy", 3),
    Column("order0_bits_per_image", "order-0 bits/image", 0, False),
    Column("bpe_bits_per_image", "BPE bits/image", 0, False),
    Column("bpe_tokens_per_image", "BPE tokens/image", 1),
    Column("order0_model_bytes", "order-0 model bytes", 0),
    Column("bpe_model_bytes", "BPE model bytes", 0),
    Column("parameters", "parameters", 0),
    Column("network_evaluations", "network evaluations", 0, False),
    Column("gflops_per_image", "GFLOPs/image", 2, False),
    Column("decode_gflops_per_image", "decode GFLOPs/image", 2, False),
    Column("sample_latency_ms", "sample ms", 1, False),
    Column("decode_latency_ms", "decode ms", 1, False),
    Column("saturated_samples_per_second", "samples/s, saturated", 1, True),
    Column("saturated_decodes_per_second", "decodes/s, saturated", 1, True),
    Column("encode_images_per_second", "encode images/s", 1, True),
    Column("sample_images_per_second", "sample images/s", 1, True),
    Column("decode_images_per_second", "decode images/s", 1, True),
    Column("peak_memory_mib", "peak memory MiB", 0, False),
)

_BY_FIELD = {column.field: (rank, column) for rank, column in enumerate(COLUMNS)}


def column_of(number: str) -> tuple[int, Column]:
    """Rank and column of a number; `codebook_usage.sem` follows `codebook_usage`, `rfid_infinity` (extrapolated to
    infinitely many images) `rfid`; unknown numbers come last."""
    base, _, stream = number.partition(".")
    if (finite := base.removesuffix(INFINITY)) != base and finite in _BY_FIELD:
        rank, column = _BY_FIELD[finite]
        return rank, Column(number, f"{column.title} ∞", column.digits, column.more)
    rank, column = _BY_FIELD.get(base, (len(COLUMNS), Column(number, number, 4)))
    if stream and base in _BY_FIELD:
        column = Column(number, f"{column.title} ({stream})", column.digits, column.more)
    return rank, column


def detail(number: str) -> bool:
    """Whether a number is for the CSV alone: curves over size, bins of ceilings and of ratios to them, single cells of
    a grid."""
    base, _, span = number.partition(".")
    return is_single_cell(number) or "_curve" in base or (bool(span) and ("_ceiling" in base or "_ratio" in base))
