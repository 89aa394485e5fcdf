//! Images to batches to slots, and logits back to labels. No cryptography and no network.
