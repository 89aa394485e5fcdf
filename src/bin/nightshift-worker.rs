//! The worker's command: holds no secret.
fn main() {}
