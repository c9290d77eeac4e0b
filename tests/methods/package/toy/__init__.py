"""A package of somebody else that brings a method: a recipe and its loss; the entry point is made by the test."""
