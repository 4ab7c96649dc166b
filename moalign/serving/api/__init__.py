"""The HTTP side: from the bytes of a request to the bytes of an answer, as OpenAI writes them."""
