"""Servers that stand for what people run instead."""
