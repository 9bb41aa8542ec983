"""Measurements, never tests: ``make bench`` prints a table and writes ``benchmarks/results/``."""
