"""The acceptance test: may a model run on a line, by requirements that two parties sign?"""
