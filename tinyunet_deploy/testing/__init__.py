"""Fakes and contract tests, for the tests of packages that build on this library."""
