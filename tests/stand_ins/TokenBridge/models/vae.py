"""Stand-in for models/vae.py of YuqingWang1029/TokenBridge at 3ede281."""

from torch import nn


class DiagonalGaussianDistribution:
    def __init__(self, parameters):
        self.mean, self.logvar = parameters.chunk(2, dim=1)

    def mode(self):
        return self.mean

    def sample(self):
        raise AssertionError("encoding must not be a matter of chance")


class AutoencoderKL(nn.Module):
    def __init__(self, embed_dim, ch_mult, use_variational=True, ckpt_path=None):
        super().__init__()
        assert ckpt_path is None, "it would unpickle"
        assert tuple(ch_mult) == (1, 1, 2, 2, 4)
        self.quant_conv = nn.Conv2d(3, 2 * embed_dim, 16, 16)
        self.post_quant_conv = nn.ConvTranspose2d(embed_dim, 3, 16, 16)

    def encode(self, x):
        assert x.min() < 0
        return DiagonalGaussianDistribution(9 * self.quant_conv(x))

    def decode(self, z):
        return self.post_quant_conv(z).tanh()
