"""Files into arrays and back: PNG, JPEG, DICOM and windows, volumes; header identifiers, kept out of every output."""
