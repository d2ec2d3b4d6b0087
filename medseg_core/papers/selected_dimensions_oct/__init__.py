"""Layers and lesions of OCT B-scans from networks that predict along selected dimensions."""
