"""Learning of a backbone from images without their labels."""
