"""Names of networks, tolerances and arguments that the specs of several metrics share."""

from __future__ import annotations

from tokbench.metric_names.spec import Tolerance

INCEPTION = "inception-2015-12-05"
"""The name of the network of FID."""

EFFICIENTNET = "efficientnet-lite0"
DINOV2, CLIP = "dinov2-vitl14", "clip-vitl14-336"

# The largest changes of a number that another CPU, thread count or minor library version may cause. Float32 networks
# agree to about 1e-6 relative, and means over images differed by 3e-7 dB and 2e-7 between two CPUs. A distance between
# similar sets is a small difference of large traces, and some pixels of a decoder are rounded to another level:
# FD-EfficientNet of 108 images differed by a relative 5e-5 between two CPUs and by 3e-7 between one thread and two; it
# did not differ for codecs.
EXACT = Tolerance()
MEAN = Tolerance(absolute=1e-5)
DISTANCE = Tolerance(absolute=1e-5, relative=5e-4)
KERNEL = Tolerance(absolute=2e-6)
BITS = Tolerance(relative=1e-4)
# One code in a few thousand may be quantized differently, and a pair of codes may be merged earlier.
PAIRS, MODEL = Tolerance(relative=5e-3), Tolerance(relative=1e-2)
# Shares: 2e-3 corresponds to one sample or word in 500. If two readings of a word have almost equal scores, rounding
# decides between them. None of 796 words differed between two CPUs; face distances differed by 3e-5, similarities by
# 7e-6.
SHARE, SIMILARITY, FACE_DISTANCE = Tolerance(absolute=2e-3), Tolerance(absolute=1e-4), Tolerance(absolute=3e-4)

# A probe decides for some images by a small margin, and a short training amplifies rounding.
PROBE, GPT = Tolerance(absolute=4e-3), Tolerance(relative=1e-2)

SETS = ("name", "protocol", "statistics", "paired")
COMPARES = ("features", "reference")

LATENT = "latent"
"""The group of the latent report: `--metrics latent` selects all its metrics."""
