//! Job manifests and receipts: the shape of the work. No cryptography: it moves files it cannot read.
