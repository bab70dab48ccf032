"""Host functions of proxy-wasm, one file per section of the ABI document."""
