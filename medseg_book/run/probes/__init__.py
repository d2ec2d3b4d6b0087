"""What `medseg doctor` looks at, one part of the machine per file; each `probe` only reads."""
