"""Host memory in place of an accelerator's, for activations until the backward pass and for optimizer state."""
