"""Stand-in for configuration_uniflow.py of yuezhengrong/UniFlow on the Hugging Face hub."""

import json
from pathlib import Path
from types import SimpleNamespace


class UniFlowVisionConfig(SimpleNamespace):
    @classmethod
    def from_json_file(cls, json_file):
        return cls(**json.loads(Path(json_file).read_text()))
