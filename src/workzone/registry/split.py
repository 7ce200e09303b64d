"""Who answers a request: the same request always the same bundle."""

from __future__ import annotations

from typing import Literal

from workzone.files import sha256_bytes

Arm = Literal["champion", "challenger"]


def assign(request_id: str, share: float, salt: str = "") -> Arm:
    """The arm of a request; a larger share only moves requests from the champion to the challenger.

    Args:
        request_id: what must stay together: a request, a drive, a client.
        share: of the challenger, in [0, 1].
        salt: of the experiment, so that two experiments split independently.

    Raises:
        ValueError: share out of range.
    """
    if not 0 <= share <= 1:
        raise ValueError("share must lie in [0, 1]")
    place = int(sha256_bytes(f"{len(salt)}:{salt}:{request_id}".encode())[:13], 16) / 16**13
    return "challenger" if place < share else "champion"
