"""What is kept of a traced request: the stages of its road as spans."""
