"""How often the class of an image is found among captions of all classes, without a training on labels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from tokbench.data.captions import class_of_caption, class_prompts
from tokbench.errors import NotApplicable
from tokbench.metrics.batch import Batch
from tokbench.metrics.retrieval import TextAlignedMetric


class ZeroShot(TextAlignedMetric):
    """`zero_shot_top1`: the share of images, in 0..1, whose embedding is most similar to that of their own class.

    As in CLIP (arXiv:2103.00020), the embedding of a class is the normalised mean of the normalised embeddings of its
    captions: "a photo of a <class>, mostly <colour>" with every colour. The colour of an image therefore does not help
    to find its class. The classes are those of the images that are evaluated; chance is one divided by their number. A
    class that is as similar as the right one counts as an error. Intervals come from resampling the images' results.
    """

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            images = self._model.token_embeddings(batch.require("tokens"))
        classes = [class_of_caption(caption) for caption in batch.require("captions")]
        return {"image": F.normalize(images.float(), dim=1).cpu().numpy(), "class": np.array(classes)}

    def measure(self) -> dict[str, np.ndarray]:
        """Return whether each image's class was found, float64 (n,). Raises NotApplicable for a single class."""
        names, own = np.unique(self.rows.texts("class"), return_inverse=True)
        if len(names) < 2:
            raise NotApplicable("all images have the same class")
        with torch.inference_mode():
            prompts = [self._model.caption_embeddings(class_prompts(name)) for name in names]
        classes = F.normalize(torch.stack([F.normalize(p.float(), dim=1).mean(0) for p in prompts]), dim=1).cpu()
        similarity = torch.from_numpy(self.rows.column("image")).double() @ classes.double().T
        right = similarity.gather(1, torch.from_numpy(own)[:, None])
        return {"zero_shot_top1": ((similarity >= right).sum(1) == 1).double().numpy()}
