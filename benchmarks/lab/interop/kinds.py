"""The kinds of models, by what they are asked: decoders, and what has no keys and values or has experts; what
gives vectors or tags; and what reads first and writes then.

Clients name those that they can be asked about. Standard library only.
"""

DECODER, MIXTURE, STATES = "decoder", "mixture", "states"
ENCODER, TAGGER, IMAGES, IMAGE_TOWER, TEXT_TOWER = (
    *("encoder", "tagger"),  # a tagger classifies tokens
    *("images", "image_tower", "text_tower"),
)
TEXT_TO_TEXT, SPEECH = "text_to_text", "speech"

DECODE = (DECODER, MIXTURE, STATES)
TOWERS = (IMAGE_TOWER, TEXT_TOWER)
ENCODE = (ENCODER, TAGGER, IMAGES, *TOWERS)
READ_AND_WRITE = (TEXT_TO_TEXT, SPEECH)
ALL = (*DECODE, *ENCODE, *READ_AND_WRITE)
