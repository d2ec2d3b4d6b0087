"""What training loops share: device, budgeted fit, samplers, arms, patches, synthetic gradients."""
