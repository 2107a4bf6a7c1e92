"""What simple methods reach on the same validation data, so that a user sees what was learned."""
