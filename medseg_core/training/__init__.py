"""What training loops share: device, budgeted fit, samplers, augmentation."""
