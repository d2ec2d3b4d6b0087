"""A CRF whose few weights are learnt exactly, by maximum margin, on top of a CNN."""
