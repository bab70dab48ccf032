"""TLS on both sides, by the standard library's `ssl`: contexts, and what a certificate says."""
