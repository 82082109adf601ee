"""ADT messages: what they say (`reading`), and what that comes to (`deciding`)."""
