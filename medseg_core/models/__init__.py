"""Networks, one family per file; every one returns logits."""
