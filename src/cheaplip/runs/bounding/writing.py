"""What an enclosure leaves behind: certificate, witness, picture, and the results of the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cheaplip.files import whole
from cheaplip.runs.bounding.enclosure import Enclosure, outward
from cheaplip.runs.bounding.keeping import keep
from cheaplip.runs.bounding.subject import Subject
from cheaplip.runs.pipeline import check_writable
from cheaplip.settings import BoundsSettings

PICTURE, CERTIFICATE, WITNESS = "bounds.png", "certificate.npz", "witness.npz"


def check_places(subject: Subject, settings: BoundsSettings) -> None:
    """Raise ValueError where nothing can be written, before anything is computed."""
    check_writable(subject.out)
    if settings.save is not None:
        file = Path(settings.save).expanduser()
        if file.is_dir():
            raise ValueError(f"cannot write the certificate to {file}, a folder: name a file, such as cert.npz")
        check_writable(file.parent)


def written(found: Enclosure, subject: Subject, settings: BoundsSettings) -> Enclosure:
    """Write what was found; return it with the names of the files.

    Args:
        found: the enclosure.
        subject: whose it is.
        settings: what was asked.
    """
    files, remarks = [], list(found.remarks)
    above, sure = found.upper, found.certified
    proven = found.verdict == "proven"
    enough = sure is not None and found.claim is not None and sure.value <= found.claim
    if sure is not None and sure.certificate is not None and (settings.save or enough):
        place = Path(settings.save).expanduser() if settings.save else subject.out / CERTIFICATE
        files.append(sure.certificate.save(place))
        if sure is not above:
            value = outward(sure.value, up=True, digits=10)
            remarks.append(f"{place.name} proves Lip <= {value} ({sure.method}): an exact value has no certificate")
    elif proven:
        remarks.append("there is no certificate of that: an exact value has none, and those of the others prove less")
    if found.verdict == "refuted":
        files.append(save_witness(subject.out / WITNESS, found))
    if above is not None:
        from cheaplip.drawing import save
        from cheaplip.runs.bounding.picture import draw

        files.append(save(draw(found), subject.out / PICTURE))
    if subject.run is not None:
        seconds = found.lower_seconds + sum(proof.seconds for proof in found.proofs)
        remarks += keep(subject.run, found.lower, above, found.p, found.box, seconds)
    return replace(found, files=files, remarks=remarks)


def save_witness(file: Path, found: Enclosure) -> Path:
    """Write the pair as ``u`` and ``v``, with the lower bound that it proves, the claim and the norm.

    Args:
        file: where to (``.npz``); one that is there is replaced.
        found: an enclosure with a claim that it refutes.
    """
    if found.lower.witness is None or found.claim is None:
        raise ValueError("there is no witness, or no claim that it refutes")
    u, v = (point.detach().cpu().double().numpy() for point in found.lower.witness)
    numbers = {"lower": found.lower.value, "claim": found.claim, "p": found.p}
    with whole(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, u=u, v=v, **{name: np.float64(n) for name, n in numbers.items()})
    return file
