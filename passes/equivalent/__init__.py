"""equivalent"""
