"""OCT B-scans: retinal layers, drusen, geographic atrophy."""
