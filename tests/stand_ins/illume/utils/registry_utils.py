"""Stand-in for vision_tokenizer/utils/registry_utils.py of huangrh99/illume at cf0676b."""

from copy import deepcopy


class DotDict(dict):
    def __getattr__(self, item):
        try:
            return self[item]
        except KeyError as error:
            raise AttributeError(item) from error

    @staticmethod
    def convert(d):
        return DotDict({k: DotDict.convert(v) for k, v in d.items()}) if isinstance(d, dict) else d


class Registry:
    def __init__(self):
        self.known = {}

    def register_module(self):
        def register(cls):
            self.known[cls.__name__] = cls
            return cls

        return register


def build_from_cfg(cfg, registry):
    arguments = deepcopy(dict(cfg))
    return registry.known[arguments.pop("type")](**arguments)
