"""Conversations and human judgement about them: the first room of the house, importing none of the others."""
