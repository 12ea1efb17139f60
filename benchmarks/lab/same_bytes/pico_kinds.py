"""What kind of model each family of the pico models is: what it reads, and which class of transformers makes
it.
"""

POOLERLESS = ("deberta-v2", "distilbert", "electra", "eurobert", "modernbert")
POOLED = ("albert", "bert", "roberta", "xlm-roberta", "camembert", "mpnet", "nomic_bert", "gte")
ENCODERS = (*POOLERLESS, *POOLED)
# Those that transformers has no Auto class for that keeps what is behind the states.
TOWERS = {
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "clip_text_model": "CLIPTextModelWithProjection",
    "siglip_vision_model": "SiglipVisionModel",
    "siglip_text_model": "SiglipTextModel",
}
HEARS = ("whisper",)
READ_IMAGES = ("vit", "dinov2", "clip_vision_model", "siglip_vision_model")
KINDS = dict.fromkeys((*ENCODERS, *TOWERS, *READ_IMAGES), "encoder") | dict.fromkeys(
    ("t5", "mt5", "bart", "marian", *HEARS), "encoder_decoder"
)
AUTO = {
    "decoder": "AutoModelForCausalLM",
    "encoder": "AutoModel",
    "encoder_decoder": "AutoModelForSeq2SeqLM",
}


def kind_of(family: str) -> str:
    """``decoder``, ``encoder`` or ``encoder_decoder``."""
    return KINDS.get(family, "decoder")
