"""Networks: backbones, low-rank adapters, heads and aggregators over views."""
