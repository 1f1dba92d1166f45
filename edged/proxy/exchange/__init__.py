"""One request on its way through the proxy: context, exchange, then fetch or methods, and sending."""
