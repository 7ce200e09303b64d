"""Which images are worth a person's look or a place in the training set; written as manifests, decided by people."""
