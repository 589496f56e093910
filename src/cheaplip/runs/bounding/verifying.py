"""verify(): prove an upper bound again from its certificate."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import final

from cheaplip.lipschitz import Bound, Certificate, check, load
from cheaplip.runs.bounding.enclosure import Verdict, where
from cheaplip.runs.bounding.subject import subject_of
from cheaplip.runs.outcome import saying
from cheaplip.runs.parts import shows
from cheaplip.settings import BoundsSettings


@final
@dataclass(frozen=True)
class Verified:
    """A certificate that holds.

    Args:
        name: of the network.
        bound: what it proves.
        certificate: all of it.
        seconds: what the proof took.
        claim: what was claimed, if anything.
    """

    name: str
    bound: Bound
    certificate: Certificate
    seconds: float
    claim: float | None

    @property
    def where(self) -> str:
        """The norm and the domain, in words."""
        return where(self.certificate.p, self.certificate.box)

    @property
    def verdict(self) -> Verdict | None:
        """What becomes of the claim; None without one. A certificate refutes nothing."""
        if self.claim is None:
            return None
        return "proven" if self.bound.value <= self.claim else "open"


def verify(target: str | Path, settings: BoundsSettings, *, progress: bool | None = None) -> Verified:
    """Verify a certificate from scratch: layers, slopes and matrices are derived from the network anew.

    Args:
        target: the run folder, or ``pkg.mod:factory``, whose code is run.
        settings: ``check`` is the file; ``shape`` and ``data`` are needed for nothing, but must fit the certificate.
        progress: show what is going on; by default if standard error is a terminal.

    Raises:
        FileNotFoundError: if there is no such certificate or run.
        ValueError: if it is damaged, of another network, in another norm than the settings ask for, or proves less
            than it says.
        TypeError: naming the module that is not understood.

    Example:
        >>> verify("runs/none", BoundsSettings(check="none.npz"))
        Traceback (most recent call last):
        FileNotFoundError: there is no certificate none.npz
    """
    if settings.check is None:
        raise ValueError("there is nothing to verify: name the file of a certificate by check")
    file = Path(settings.check).expanduser()
    certificate = load(file)
    shape = certificate.shape
    if not shape or any(side < 1 for side in shape):
        raise ValueError(f"{file} is for inputs of shape {shape}, which are none: it is damaged")
    if settings.p is not None and float(settings.p) != certificate.p:
        raise ValueError(f"{file} is for p = {certificate.p:g}; got p = {settings.p}: leave it out")
    subject, _ = subject_of(str(target), settings, shape)
    if subject.shape != shape:
        raise ValueError(
            f"{file} is of another model: it is for inputs of shape {shape}, {target} takes {subject.shape}"
        )
    begun = time.perf_counter()
    with saying("verifying the certificate", shows(progress)):
        try:
            proven = check(certificate, subject.model)
        except ValueError as error:
            raise ValueError(f"{file} proves nothing of {target}: {error}") from error
    return Verified(subject.name, proven, certificate, time.perf_counter() - begun, settings.claim)
