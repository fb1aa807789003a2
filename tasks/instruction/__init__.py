"""Instruction tuning: which conversations should a language model learn from?"""
