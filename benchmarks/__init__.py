"""Benchmarks and studies; README.md says how to run them."""
