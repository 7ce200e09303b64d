"""Several data sets as one: ids, groups, provenance and licence of each image, and how much it counts."""
