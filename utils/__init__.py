"""Helpers of the course *Explainable Transfer Learning*; the notebooks hold the prose."""
