"""Stand-in for modeling/one_d_piece.py of turingmotors/One-D-Piece at 473665d."""

from modeling.titok import TiTok


class OneDPiece(TiTok):
    pass
