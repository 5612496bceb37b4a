"""Files that single-file checkpoints lack and all models of a family share, and what made them."""
