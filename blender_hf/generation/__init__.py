"""What language models write for this package: candidates, fused answers and verdicts, here or over the network."""
