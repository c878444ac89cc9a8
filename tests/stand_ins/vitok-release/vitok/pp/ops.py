"""Stand-in for vitok/pp/ops.py of Na-VAE/vitok-release at a90f23b."""

import torch
import torch.nn.functional as F


def patchify(patch=16, max_tokens=256):
    def cut(image):
        _, height, width = image.shape
        patches = F.unfold(image[None], patch, stride=patch)[0].T
        assert len(patches) == max_tokens
        rows, columns = torch.meshgrid(torch.arange(height // patch), torch.arange(width // patch), indexing="ij")
        mask = torch.ones(len(patches), dtype=torch.bool)
        return {"patches": patches, "patch_mask": mask, "row_idx": rows.flatten(), "col_idx": columns.flatten()}

    return cut


def unpatchify(patch_dict, patch=16, max_grid_size=None):
    rows, columns = (int(patch_dict[key].max()) + 1 for key in ("row_idx", "col_idx"))
    flat = patch_dict["row_idx"] * columns + patch_dict["col_idx"]
    patches = patch_dict["patches"].masked_fill(~patch_dict["patch_mask"][..., None], 0.0).transpose(1, 2)
    placed = torch.zeros_like(patches).scatter(2, flat[:, None].expand_as(patches), patches)
    return F.fold(placed, (rows * patch, columns * patch), patch, stride=patch)
