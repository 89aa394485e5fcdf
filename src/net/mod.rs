//! The model: layers as trained, their exact folding, and the integer circuit that everything downstream reads.
//!
//! A [`Network`](network::Network) is what a user trained (floats, layers in order). [`lower`](lower::lower) turns it into a
//! [`Circuit`](circuit::Circuit): integer linear maps over values and squares of values, nothing else. The clear
//! oracle evaluates the first, the integer oracle the second. No cryptography is known here.

pub mod circuit;
pub mod network;
