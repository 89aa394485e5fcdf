//! The public interface of `packing`, from files to slot vectors and from logits to files. One binary, so that it links
//! once.
//!
//! Everything is made here in temporary folders, except in `real_data`, which needs the shared data sets and says so
//! when it has to skip.

mod elementwise;
mod hostile;
mod labels;
mod own_data;
mod pictures;
mod readers;
mod real_data;
mod support;
