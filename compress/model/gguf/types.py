"""In which of GGUF's types the codes of a scheme are kept as they are."""

from ...numbers.scheme import Scheme

BLOCK = 32  # weights that share a scale in Q4_0, Q5_0 and Q8_0, which repeat that of a larger group
TERNARY = "TQ2_0"
WAY_OUT = (
    "use 4, 5 or 8 bits in groups of a multiple of 32, ternary weights with `scales: matrix`, or Q2_K to "
    "Q6_K or IQ4_NL"
)


def type_of(scheme: Scheme, in_features: int) -> str | None:
    """The type for rows of ``in_features`` codes; :data:`TERNARY`, of symmetric codes of 2 bits, where all of
    them are −1, 0 or 1. None where there is none.
    """
    if scheme.of_gguf:
        return scheme.name
    if scheme.format != "int" or not scheme.symmetric:
        return None
    if scheme.bits == 2:
        return TERNARY
    whole = (scheme.group_size or in_features) % BLOCK == 0
    return {4: "Q4_0", 5: "Q5_0", 8: "Q8_0"}.get(scheme.bits) if whole else None
