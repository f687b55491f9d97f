"""Stands in for torch.utils while fairseq is built."""
