//! Arguments about figures for Prometheus.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// Where figures go.
#[derive(Args, Debug, Default)]
pub struct MetricsArgs {
    /// Add this run's figures to a file for node_exporter's textfile collector; it should end in .prom
    #[arg(long, value_name = "FILE")]
    pub metrics_textfile: Option<PathBuf>,
    /// Answer GET /metrics at this address while it runs, such as 127.0.0.1:9464; neither encrypted nor guarded
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<SocketAddr>,
}
