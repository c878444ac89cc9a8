"""Stand-in for flextok/flow_matching/pipelines.py of apple/ml-flextok at 87d00cc."""

import torch


class MinRFPipeline:
    def __init__(self, model, out_channels):
        self.model, self.out_channels = model, out_channels

    def __call__(self, data_dict, generator=None, timesteps=25, vae_image_sizes=None, verbose=True, guidance_scale=1.0,
                 perform_norm_guidance=False):  # fmt: skip
        assert generator is not None and timesteps == 20 and guidance_scale == 7.5 and perform_norm_guidance
        side, found = vae_image_sizes, []
        for drive in self.model(data_dict):
            noise = torch.randn((1, self.out_channels, side, side), generator=generator, device=drive.device)
            tiled = drive.transpose(1, 2).repeat(1, 1, side * side // drive.shape[1])
            found.append(0.5 * noise + tiled.unflatten(2, (side, side)))
        return found
