"""What is not a Gradio page: signing in, and the review desk's JSON."""
