"""Threads that wait for each other give the cores back sooner."""

from collections.abc import MutableMapping

SPINS = "3000"  # of GNU's 300,000; with none at all, training on free cores takes a fifth longer


def spin_less(environment: MutableMapping[str, str]) -> None:
    """Set how long OpenMP's threads spin while they wait, unless the user has.

    Beside three busy processes on two cores a training then takes half the time, on free cores as
    long as before. GNU's library reads it when torch is loaded, others take no notice.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)
