"""What a person touches: the page and the command line. Loads no torch, vllm, trl, peft or argilla at start."""
