"""The spine: a request goes gateway -> replica -> scheduler and engine, and its tokens come back as a stream."""
