"""What the hierarchy costs: `python -m benches` measures it and writes `reports/benches`."""
