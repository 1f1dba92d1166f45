"""The release, in one place: read by the build, `edged --version`, the user agent and the metrics."""

VERSION = "0.1.0"
