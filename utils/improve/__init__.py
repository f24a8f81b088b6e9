"""The feedback loop: mistakes, findings, generated images, retraining."""
