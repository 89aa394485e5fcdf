//! Where a run's tensors lie: burn's own backend on the CPU, or a GPU in builds with a backend for one.

use burn::tensor::Device;

use super::error::TrainError;

/// What computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compute {
    /// The CPU: the same recipe and data give the same bits.
    #[default]
    Cpu,
    /// The GPU that wgpu takes for the best. Its sums are of no fixed order: no two runs need give the same bits.
    Gpu,
}

impl Compute {
    /// Whether this build can compute there.
    ///
    /// # Errors
    /// [`TrainError::NoGpu`].
    pub fn check(self) -> Result<(), TrainError> {
        self.device().map(drop)
    }

    /// The device. Errors: a GPU in a build without a backend for one.
    pub(super) fn device(self) -> Result<Device, TrainError> {
        match self {
            Compute::Cpu => Ok(Device::flex()),
            Compute::Gpu => gpu(),
        }
    }
}

#[cfg(feature = "train-wgpu")]
#[expect(clippy::unnecessary_wraps, reason = "builds without a GPU refuse")]
fn gpu() -> Result<Device, TrainError> {
    Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice))
}

#[cfg(not(feature = "train-wgpu"))]
fn gpu() -> Result<Device, TrainError> {
    Err(TrainError::NoGpu)
}
