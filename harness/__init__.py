"""Private daemons for the demonstration, the benchmarks and the end-to-end tests."""
