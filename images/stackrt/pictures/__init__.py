"""Data sets of pictures, and what the trainers of pictures share whatever their framework. No framework in here."""
