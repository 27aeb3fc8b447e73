"""Spectral factors: the leading singular vectors of the normalised interactions, by block Krylov iteration."""
