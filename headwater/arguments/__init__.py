"""What commands take: options, the prompt, and checks of both before any work starts."""
