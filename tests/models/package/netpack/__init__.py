"""A package of somebody else that brings a network; the entry point is made by the test."""
