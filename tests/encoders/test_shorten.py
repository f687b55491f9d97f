"""Shortening against cutting one token at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_scl.encoders.shorten import shortened_lengths

sizes = st.integers(0, 60)
one_or_two = st.tuples(sizes) | st.tuples(sizes, sizes)


def cut_token_by_token(lengths, room):
    """Cut the longer sentence; of two equally long ones, the one that was shorter at first.

    If they were equally long at first too, it is the first sentence that yields.
    """
    lengths = list(lengths)
    yields = lengths.index(min(lengths))
    while sum(lengths) > room:
        longest = max(lengths)
        lengths[yields if lengths[yields] == longest else lengths.index(longest)] -= 1
    return tuple(lengths)


@given(one_or_two, sizes)
def test_the_result_fits_and_nothing_grows(lengths, room):
    result = shortened_lengths(lengths, room)
    assert len(result) == len(lengths)
    assert sum(result) <= room
    assert all(0 <= new <= old for new, old in zip(result, lengths, strict=True))


@given(one_or_two, st.integers(0, 20))
def test_what_fits_is_left_alone(lengths, spare):
    assert shortened_lengths(lengths, sum(lengths) + spare) == lengths


@given(one_or_two, sizes)
def test_no_room_is_wasted(lengths, room):
    assert sum(shortened_lengths(lengths, room)) == min(sum(lengths), room)


@given(sizes, sizes, sizes)
def test_a_second_sentence_of_up_to_half_the_room_stays_whole(first, second, room):
    second = min(second, room // 2)
    assert shortened_lengths((first, second), room)[1] == second


@given(sizes, sizes, sizes)
def test_a_first_sentence_of_up_to_half_the_room_stays_whole(first, second, room):
    first = min(first, room // 2)
    assert shortened_lengths((first, second), room)[0] == first


@given(one_or_two, sizes)
def test_equals_cutting_token_by_token(lengths, room):
    assert shortened_lengths(lengths, room) == cut_token_by_token(lengths, room)


@pytest.mark.parametrize(
    ("lengths", "room", "expected"),
    [
        ((9,), 4, (4,)),
        ((10, 3), 8, (5, 3)),
        ((3, 10), 8, (3, 5)),
        ((10, 9), 8, (4, 4)),
        ((10, 9), 7, (4, 3)),
        ((9, 10), 7, (3, 4)),
        ((9, 9), 7, (3, 4)),
        ((5, 5), 0, (0, 0)),
    ],
)
def test_examples(lengths, room, expected):
    assert shortened_lengths(lengths, room) == expected
