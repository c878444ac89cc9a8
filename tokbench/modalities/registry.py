"""MODALITIES: every kind of data by name."""

from __future__ import annotations

from tokbench.metric_names import Modality as ModalityName
from tokbench.modalities.base import Modality
from tokbench.modalities.images import Images
from tokbench.modalities.shapes.modality import Voxels
from tokbench.modalities.sound.modality import Waveforms
from tokbench.modalities.video.modality import Clips

MODALITIES: dict[ModalityName, Modality] = {one.name: one for one in (Images(), Clips(), Waveforms(), Voxels())}
