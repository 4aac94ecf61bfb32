"""Protocols by which numbers of this field are compared: retrieval, epochs, what is known of a person, and other people's predictions."""
