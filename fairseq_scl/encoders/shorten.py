"""Fitting one or two sentences into an encoder's positions."""


def shortened_lengths(lengths: tuple[int, ...], room: int) -> tuple[int, ...]:
    """How many tokens to keep of each sentence so that together they fit.

    The longer sentence is cut first, so that a short second sentence survives whole
    (the rule of transformers' `longest_first`).

    Args:
        lengths: tokens of one or two sentences, without special tokens.
        room: tokens that fit, without special tokens.

    Returns:
        Lengths that sum to at most `room`, none more than it was.
    """
    if sum(lengths) <= room:
        return lengths
    if len(lengths) == 1:
        return (room,)
    shorter = min(*lengths, room // 2)
    longer = room - shorter
    return (longer, shorter) if lengths[0] > lengths[1] else (shorter, longer)
