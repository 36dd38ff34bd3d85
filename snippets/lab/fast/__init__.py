"""Losses in the form to run: the same values, in less time and memory.

A module here has the key of a paper. It repeats some names of that
paper's script, which defines what they mean.
"""
