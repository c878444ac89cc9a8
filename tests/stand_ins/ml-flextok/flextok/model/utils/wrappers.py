"""Stand-in for flextok/model/utils/wrappers.py of apple/ml-flextok at 87d00cc."""

from torch import nn


class SequentialModuleDictWrapper(nn.Module):
    def __init__(self, module_dict):
        super().__init__()
        self.module_dict = nn.ModuleDict(module_dict)
        self.use_flex_attention = True

    def forward(self, data):
        assert not self.use_flex_attention, "it is compiled for GPUs"
        for module in self.module_dict.values():
            data = module(data)
        return data
