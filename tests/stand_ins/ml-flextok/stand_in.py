"""A checkpoint of this stand-in: a plain state dict, and the config in the file's metadata (utils/checkpoint.py)."""

from flextok.flextok_wrapper import FlexTokFromHub

MODEL = "flextok.model"
CONFIG = {
    "vae": {"_target_": "flextok.vae_wrapper.StableDiffusionVAE", "sample_posterior": True},
    "encoder": {
        "_target_": f"{MODEL}.utils.wrappers.SequentialModuleDictWrapper",
        "module_dict": {
            "enc_register_module": {"_target_": f"{MODEL}.preprocessors.registers.Registers1D", "n_max": 256, "dim": 16}
        },
    },
    "decoder": {
        "_target_": f"{MODEL}.utils.wrappers.SequentialModuleDictWrapper",
        "module_dict": {
            "dec_nested_dropout": {"_target_": f"{MODEL}.preprocessors.token_dropout.MaskedNestedDropout", "dim": 6}
        },
    },
    "regularizer": {"_target_": "flextok.regularizers.quantize_fsq.FSQ", "levels": [8, 8, 8, 5, 5, 5]},
    "flow_matching_noise_module": None,
    "pipeline": {"_target_": "flextok.flow_matching.pipelines.MinRFPipeline", "_partial_": True, "out_channels": 16},
}
METADATA = {key: str(value) for key, value in CONFIG.items()}


def files(given):
    return {"model": FlexTokFromHub(CONFIG).state_dict()}
