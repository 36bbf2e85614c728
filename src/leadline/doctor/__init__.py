"""Names why a network does not learn: findings with their evidence, before and during training."""
