"""The services behind the routes: requests to them, and WebSockets passed through."""
