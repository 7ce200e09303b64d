"""StreetVision (Bittensor subnet 72): its challenges and reward simulated offline, and a detector class for its miners.

Nothing here talks to a network or needs bittensor. What the protocol does was read from its public code at two
versions; ``transforms.PROTOCOLS`` lists them.
"""

from __future__ import annotations

from workzone.streetvision.reward import ema, rewards
from workzone.vision.streetvision.transforms import PROTOCOLS, Protocol, augment, draw, transform, wire

__all__ = ["PROTOCOLS", "Protocol", "augment", "draw", "ema", "rewards", "transform", "wire"]
