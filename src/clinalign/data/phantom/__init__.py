"""Phantom chest radiographs: drawn cases with exact masks and counterfactuals. Never clinical."""
