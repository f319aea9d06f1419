"""Answers into judged outcomes, metrics and statistics."""
