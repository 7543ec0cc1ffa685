"""Correct implementations in memory, plain rather than fast, which mutants are made from."""
