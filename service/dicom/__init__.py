"""DICOM with other systems: what comes in by C-STORE and STOW-RS, what is asked and fetched, what is sent."""
