"""Who may see what: pure. Actors come in, an answer with its reason goes out; accounts are in `engine.store.users`."""
