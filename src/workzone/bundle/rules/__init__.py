"""Rules: calibrator, policy and certificate for scores of a model that stays elsewhere."""
