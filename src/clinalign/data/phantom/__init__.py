"""Phantom chest radiographs: drawn cases with exact masks and counterfactual twins. Never clinical."""
