"""Fakes and a contract suite for the tests of those who build on this library."""
