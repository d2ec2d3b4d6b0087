"""What notebooks use: scales, claims, comparisons, widgets, plotting."""
