//! Memory: what the machine has and this process holds, and what is said when there is none left.

pub mod allocator;
mod note;
mod system;

use crate::device::{self, ResolvedDevice};

pub use crate::units::bytes as shown;
pub use note::{Doing, idle, now};

/// The memory of a device of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Bytes that nobody holds, this process included.
    pub free: u64,
    /// All of its bytes.
    pub total: u64,
}

impl DeviceMemory {
    /// Bytes that are held, by whichever process.
    pub fn used(self) -> u64 {
        self.total.saturating_sub(self.free)
    }
}

/// Bytes of this process that are in memory now; `None` if the system does not say.
pub fn resident() -> Option<u64> {
    system::Files::default().status("VmRSS")
}

/// The most bytes of this process that were in memory at once so far; `None` if the system does not say.
pub fn peak() -> Option<u64> {
    system::Files::default().status("VmHWM")
}

/// Bytes that this process can still get: what the system has left, within the limits of its control groups
/// (`memory.max`, `memory.limit_in_bytes`) and of its address space (`ulimit -v`). `None` if the system does not say.
pub fn available() -> Option<u64> {
    system::Files::default().available()
}

/// The memory of a device: none on the CPU, whose memory is the system's, and where it cannot be asked.
pub fn device(chosen: ResolvedDevice) -> Option<DeviceMemory> {
    match chosen {
        ResolvedDevice::Cpu => None,
        ResolvedDevice::Cuda(number) => {
            let (free, total) = device::cuda_memory(number)?;
            Some(DeviceMemory { free, total })
        }
    }
}
