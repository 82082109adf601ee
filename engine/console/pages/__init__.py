"""Pages for people, rendered here: the same looks and acts as the API's, as HTML."""
