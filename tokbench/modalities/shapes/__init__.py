"""3-D shapes as voxels (4, D, D, D): occupancy, then red, green and blue."""
