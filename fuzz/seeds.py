"""Valid files of every format that tokbench reads, small enough to be read a thousand times per second."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def photo() -> Image.Image:
    from skimage import data

    return Image.fromarray(data.astronaut()[90:130, 190:222])


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def images() -> list[bytes]:
    whole = photo()
    made = [encode(whole, kind) for kind in ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM", "JPEG2000")]
    made += [encode(whole, "JPEG", progressive=True), encode(whole.convert("CMYK"), "JPEG")]
    made += [encode(whole, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")]
    made += [encode(whole.convert(mode), "PNG") for mode in ("L", "LA", "RGBA", "P", "1")]
    made += [encode(whole.convert(mode), "TIFF") for mode in ("CMYK", "YCbCr", "L")]
    made += [encode(whole, "WEBP", lossless=True), encode(whole.convert("RGBA"), "WEBP")]
    grey = np.arange(40 * 32, dtype=np.uint16).reshape(40, 32) * 51
    made += [encode(Image.fromarray(grey), kind) for kind in ("PNG", "TIFF")]
    made += [encode(Image.fromarray(grey.astype(np.float32)), "TIFF")]
    again = [whole.rotate(90), whole.rotate(180)]
    made += [encode(whole, kind, save_all=True, append_images=again) for kind in ("GIF", "PNG", "WEBP", "AVIF", "TIFF")]
    return made


def members() -> dict[str, bytes]:
    whole = photo()
    return {"b/a.png": encode(whole, "PNG"), "c.jpg": encode(whole, "JPEG"), "d.gif": encode(whole, "GIF")}


def zips() -> list[bytes]:
    made = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, data in members().items():
                archive.writestr(name, data)
        made.append(buffer.getvalue())
    return made


def tars() -> list[bytes]:
    made = []
    pax, gnu, ustar = tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT
    for mode, kind in (("w", pax), ("w", gnu), ("w", ustar), ("w:gz", pax), ("w:xz", gnu), ("w:bz2", gnu)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode, format=kind) as archive:  # type: ignore[call-overload]
            long = {"e" * 130 + "/é.png": encode(photo(), "PNG")} if kind != ustar else {}
            for name, data in (members() | long).items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "c.jpg"
            archive.addfile(link)
        made.append(buffer.getvalue())
    return made


def parquets() -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"bytes": data, "path": name} for name, data in members().items()]
    rows += [{"bytes": None, "path": None}, None, *rows[:1]]
    kind = pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])
    made = []
    for column, options in (
        (pa.array(rows), {}), (pa.array(rows), {"compression": "zstd", "row_group_size": 2}),
        (pa.array(rows), {"compression": "none", "use_dictionary": False, "data_page_version": "2.0"}),
        (pa.array(rows, kind), {"compression": "gzip"}), (pa.array([{"bytes": rows[0]["bytes"]}]), {}),
    ):  # fmt: skip
        buffer = io.BytesIO()
        pq.write_table(pa.table({"image": column, "label": pa.array(range(len(column)))}), buffer, **options)
        made.append(buffer.getvalue())
    return made


def results() -> list[bytes]:
    """Return inputs that contain the length of the JSON in four bytes, the JSON and the .npz."""
    made = []
    for name in ("toy.p8", "jpeg.q50"):
        path = ROOT / "results" / name / "samples-reconstruct.json"
        facts = json.loads(path.read_text(encoding="utf-8"))
        facts["bad_images"] = [{"name": "x.png", "reason": "empty"}]
        text = json.dumps(facts, indent=1).encode()
        with np.load(path.with_suffix(".npz")) as arrays:
            few = {key: array if key.startswith("replicates") else array[:8] for key, array in arrays.items()}
        for pack in (np.savez, np.savez_compressed):
            buffer = io.BytesIO()
            pack(buffer, **few)  # type: ignore[operator]
            made.append(struct.pack("<I", len(text)) + text + buffer.getvalue())
    return made


def statistics() -> list[bytes]:
    description = {
        "network": "n",
        "input": "tf1",
        "precision": "float32",
        "weights": "w",
        "count": 9,
        "layers": ["4", "sfid"],
    }
    mean, covariance = np.arange(4.0), np.eye(4) * 2
    made = []
    for pack in (np.savez, np.savez_compressed):
        for extra in ({}, {"tokbench": np.array(json.dumps(description)), "mu_s": mean, "sigma_s": covariance}):
            buffer = io.BytesIO()
            pack(buffer, mu=mean, sigma=covariance.astype(np.float32), **extra)  # type: ignore[operator]
            made.append(buffer.getvalue())
    return made
