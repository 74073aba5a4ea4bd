"""Figures from data sets and score tables, one module for each notebook."""
