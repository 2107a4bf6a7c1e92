"""Host memory in place of an accelerator's: activations wait there for the backward pass, optimizer state lives there."""
