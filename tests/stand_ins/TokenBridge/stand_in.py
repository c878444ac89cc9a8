"""A checkpoint of this stand-in: the weights under `model` (models/vae.py, init_from_ckpt)."""

from models.vae import AutoencoderKL


def files(given):
    return {"vae": {"model": AutoencoderKL(embed_dim=16, ch_mult=(1, 1, 2, 2, 4)).state_dict()}}
