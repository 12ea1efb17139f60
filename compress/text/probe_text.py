"""The text that every step of a recipe is measured on: four short ones of several kinds, which come with the
package and were written for it.

Nothing calibrates with it or learns from it, so that one number says what a step costs, whatever it
read; a calibration text that holds it is refused. The first :data:`TOKENS` tokens of each text are taken.
"""

import hashlib
import re
from collections.abc import Iterable

import numpy as np
import torch

from ...errors import CalibrationError
from ...runtime.text.tokenizer import Tokenizer
from .token_batch import TokenBatch, hash_of

TOKENS = 256

# A single end of line is a space, and an empty line is one.
_WRAPPED = (
    """The ferry left the island at ten past six, as it did every morning, with eleven passengers and a
crate of onions. Marta stood at the rail and counted the gulls. Her brother had told her that there were
always more of them on days when the wind came from the north, and she had never believed him; but today
there were forty, or forty-one, and the wind came from the north.

"You will catch cold," said the man beside her. He wore a coat that had once been blue, and he held a
cello case upright between his knees, as one holds a child on a swing.

"I never do," she said. "Do you play that, or do you only carry it?"

"Both. On Tuesdays I only carry it."

She thought about this until the lighthouse had passed behind them. It was a Tuesday. At the harbour a
woman in yellow boots was waiting with a handcart, and when she saw the case she began to laugh, so loudly
that the captain put his head out of the window of the wheelhouse. Nobody ever told Marta what the joke
had been. Years later, when she had a shop of her own in that same street and sold strings and bows and
resin to people who had come a long way for them, she still looked up whenever it was Tuesday, the wind
came from the north, and somebody stepped from the boat with something heavy in both hands.""",
    """To replace the filter, first close the tap below the basin and put a bowl under the joint. The nut
turns to the left; if it does not move, warm it with a cloth that was dipped in hot water, and try again
after a minute. Do not use pliers without a rag between the jaws and the metal, since the thread is made
of brass and is easily crushed. When the nut is off, pull the housing straight down. About half a litre of
water will follow it.

Inside you find three parts: a ring of rubber, a sieve, and the cartridge itself. Keep the ring. Rinse the
sieve from the back, so that the grit leaves the way it came, and look at it against the light: a mesh
with a hole in it must be replaced, because it lets sand into the valve. The old cartridge goes into the
ordinary rubbish. Wet the new one before you push it in, with the arrow towards the tap, until you feel it
stop.

Then screw the nut on by hand, a quarter of a turn further than seems necessary, and open the tap slowly.
A few drops in the first hour do no harm. If it still drips in the evening, take everything apart once
more: in nine of ten cases the ring was twisted. Write the date on the housing with a pencil. A cartridge
lasts for six months in soft water and for four in hard water, and smell is a poor guide to either.""",
    """Lakes in cold regions do not freeze from the bottom, and the reason is an oddity of water. Most
liquids become denser as they cool, so that the coldest part sinks; water does so only down to about four
degrees Celsius. Below that it expands again, because its molecules begin to arrange themselves in the
open pattern that ice will have. In autumn the surface of a lake loses heat to the air, sinks, and is
replaced by warmer water from below, and this circulation goes on until the whole lake has reached four
degrees. From then on the colder water stays on top, where it freezes first, and the layer of ice slows
down all further loss of heat. Fish spend the winter in the depths, at a temperature that hardly changes.

The same circulation carries oxygen down in autumn and again in spring, when the ice has melted and the
surface warms towards four degrees from the other side. A deep lake in the tropics, whose surface is never
cold enough, may not turn over for centuries, and below some hundred metres nothing lives in it but
bacteria. Measurements over fifty years show that the ice of many northern lakes now forms eight to
fifteen days later than it did, and some of the shallow ones no longer freeze every year. How their fish
respond depends less on the mean of the temperature than on how long summer separates the warm water above
from the cold water below.""",
    """Minutes of the meeting of 14 March. Present: Adeyemi, Castellanos, Horvath, Lindqvist (chair),
Okafor. Excused: Petrov. 1. The minutes of February were approved with one correction: the repair of the
roof cost 3,480, not 4,380. 2. Horvath reported on the tests of the booking page. Of 212 visitors 187
finished a reservation, against 151 in the month before; the median time fell from 94 to 61 seconds. Two
faults remain. A date such as 31 April is accepted without a word, and the page forgets the number of
guests when the language is changed. She showed the lines that will catch the first:

def valid(day, month, year):

    if not 1 <= month <= 12:

        return False

    longest = [31, 29 if leap(year) else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

    return 1 <= day <= longest[month - 1]

Castellanos asked whether guests from abroad write the month first. Agreed: the page will show its name.
3. Okafor proposed to open the garden on Sundays from May to September, between 10 a.m. and 5 p.m., with
two volunteers a shift. Lindqvist doubted that eighteen people could be found; Adeyemi had asked around,
and has twenty-three names. Carried, four votes to one. 4. Any other business: the key of the cellar is
missing again. Whoever has it is asked to return it to the office, no questions asked. Next meeting: 11
April, 7 p.m., in the small hall.""",
)
TEXTS = tuple(re.sub("(?<!\n)\n(?!\n)", " ", text).replace("\n\n", "\n") for text in _WRAPPED)
SHA256 = hashlib.sha256("\0".join(TEXTS).encode()).hexdigest()
# What betrays each of them, in whatever it was copied into.
_MARKS = tuple(" ".join(text.split())[200:260] for text in TEXTS)


def probe_batches(tokenizer: Tokenizer, length: int) -> list[TokenBatch]:
    """A batch of one row for each of the texts, of at most ``length`` tokens and none of padding."""
    ids = [tokenizer.encode(text, max_length=min(TOKENS, length)) for text in TEXTS]
    rows = [torch.from_numpy(np.asarray(row, np.int64))[None] for row in ids]
    return [TokenBatch(row, torch.ones_like(row)) for row in rows]


def describe(batches: Iterable[TokenBatch]) -> dict[str, object]:
    """What a manifest keeps of the text and its tokens; of images without a text."""
    found = tuple(batches)
    tokens = sum(batch.attention_mask.numel() for batch in found)
    read = None if any(batch.input_ids.is_floating_point() for batch in found) else SHA256
    return {"text_sha256": read, "tokens": tokens, "sha256": hash_of(found)}


def refuse_probe(texts: Iterable[str], source: str) -> None:
    """Refuse to calibrate with ``texts`` that hold what steps are measured on."""
    for text in texts:
        line = " ".join(text.split())
        if any(mark in line for mark in _MARKS):
            raise CalibrationError(
                f"{source} holds the text that every step is measured on",
                why="what was calibrated with it would look better there than anywhere else",
                fix="leave out the texts of edgepress/compress/text/probe_text.py",
            )
