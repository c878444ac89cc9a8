"""Stand-in for src/WeTok/modules/diffusionmodules/improved_model.py of zhuangshaobin/WeTok at caa2ad7."""

import torch
from torch import nn


class Encoder(nn.Module):
    def __init__(self, *, ch, out_ch, in_channels, num_res_blocks, z_channels, ch_mult, resolution, double_z=False):
        super().__init__()
        assert (ch, out_ch, num_res_blocks, resolution, double_z) == (256, 3, 4, 128, False)
        factor = 2 ** (len(ch_mult) - 1)
        self.conv_in = nn.Conv2d(in_channels, z_channels, factor, factor)

    def forward(self, x):
        assert x.min() < 0
        return self.conv_in(x)


class Decoder(nn.Module):
    inputs = 1

    def __init__(self, *, ch, out_ch, in_channels, num_res_blocks, z_channels, ch_mult, resolution, double_z=False):
        super().__init__()
        factor = 2 ** (len(ch_mult) - 1)
        self.conv_out = nn.ConvTranspose2d(z_channels * self.inputs, out_ch, factor, factor)

    def forward(self, z):
        assert torch.equal(z.abs(), torch.ones_like(z))
        return self.conv_out(z).tanh()


class GANDecoder(Decoder):
    inputs = 2

    def forward(self, z):
        return self.conv_out(torch.cat([z, torch.randn_like(z)], 1)).tanh()
