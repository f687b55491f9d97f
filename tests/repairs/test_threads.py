"""Threads spin less while they wait, unless the user says how."""

import pytest

from fairseq_scl.repairs.threads import SPINS, spin_less


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": SPINS}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_what_is_set_stays(given, expected):
    spin_less(given)
    assert given == expected
