"""CPU time of everything that is not the model: per request and per streamed chunk, beside peers."""
