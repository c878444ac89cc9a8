"""Stand-in for kolmogorov_tokenizers/__init__.py of ShivamDuggal4/karl at 5c1a569, which reads its configs by paths
relative to the repository."""

from pathlib import Path

from kolmogorov_tokenizers.karl_vqgan import KARLTokenizer, VQGANWrapper

CODES = int(Path("kolmogorov_tokenizers/configs/karl_vqgan.yaml").read_text().split(":")[1])


def karl_small(base_tokenizer_args, **kwargs):
    assert base_tokenizer_args["id"] == "vqgan"
    return KARLTokenizer(base_tokenizer=VQGANWrapper(**base_tokenizer_args), vq_codebook_size=CODES, **kwargs)
