//! The client's and model owner's command.
fn main() {}
