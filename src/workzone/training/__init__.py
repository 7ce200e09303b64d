"""Training: heads on cached features, adaptation of backbones on images."""
