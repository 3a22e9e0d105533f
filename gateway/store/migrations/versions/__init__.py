"""One file a step. What was released is never changed; a new need is a new file."""
