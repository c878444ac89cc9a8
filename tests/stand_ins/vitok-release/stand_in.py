"""A checkpoint of this stand-in: the encoder's tensors in one file, the decoder's in another (pretrained.py)."""

from vitok.models.ae import AE, decode_variant


def files(given):
    state = AE(**decode_variant(given["variant"]), attn_backend="sdpa").state_dict()
    encoder = {name: value for name, value in state.items() if name.startswith("to_code.")}
    return {"encoder": encoder, "decoder": {name: state[name] for name in state.keys() - encoder.keys()}}
