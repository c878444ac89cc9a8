"""The kinds of data that one evaluation loop measures: images, clips, waveforms and voxels."""
