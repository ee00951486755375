"""The development questions of MMLU, as lm-eval's own package holds them."""
