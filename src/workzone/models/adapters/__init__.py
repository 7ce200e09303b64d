"""Low-rank adapters on the linear layers of a backbone."""

from workzone.models.adapters.lora import adapted_layers, apply_adapter, merge, trainable_parameters

__all__ = ["adapted_layers", "apply_adapter", "merge", "trainable_parameters"]
