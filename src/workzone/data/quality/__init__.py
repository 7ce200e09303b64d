"""What is wrong with a data set: copies, labels in doubt, odd and unusable pictures; for a person to judge."""
