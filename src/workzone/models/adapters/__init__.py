"""Low-rank adapters on the linear layers of a backbone."""

from workzone.models.adapters.layers import adapted_layers
from workzone.models.adapters.lora import METHODS, apply_adapter, merge, trainable_parameters

__all__ = ["METHODS", "adapted_layers", "apply_adapter", "merge", "trainable_parameters"]
