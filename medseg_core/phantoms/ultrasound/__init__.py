"""Ultrasound B-mode: the heart in two chambers."""
