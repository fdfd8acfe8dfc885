//! Where the numbers are computed: the CPU, or a CUDA device where the machine has one. The backend is chosen here,
//! once; all else is generic over it.

use burn::backend::Flex;

use crate::{
    config::{Device, Devices},
    ops::Ops,
};

/// A device that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The CPU.
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

impl std::fmt::Display for Chosen {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

/// A device that was asked for and is not there.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// CUDA cannot be used at all.
    #[error("no CUDA device can be used: {reason}; use --device cpu, or auto to take what is there")]
    NoCuda {
        /// Why.
        reason: String,
    },
    /// There are fewer devices.
    #[error("there is no cuda:{number}: this machine has {count} CUDA device(s), numbered from 0")]
    NoSuchDevice {
        /// What was asked for.
        number: usize,
        /// How many there are.
        count: usize,
    },
}

/// How many CUDA devices there are, or why there are none. Starts nothing on them.
///
/// # Errors
/// The program was built without CUDA, or the machine has no driver, no device, or no CUDA headers to compile kernels.
pub fn cuda_devices() -> Result<usize, String> {
    cuda::devices()
}

/// Free and total bytes of a CUDA device; none where it cannot be asked.
#[must_use]
pub fn cuda_memory(number: usize) -> Option<(u64, u64)> {
    cuda::memory(number)
}

/// The device to use.
///
/// # Errors
/// A CUDA device was asked for by name and is not there.
pub fn choose(device: Device) -> Result<Chosen, DeviceError> {
    match device {
        Device::Cpu => Ok(Chosen::Cpu),
        Device::Auto => Ok(if cuda_devices().is_ok_and(|count| count > 0) { Chosen::Cuda(0) } else { Chosen::Cpu }),
        Device::Cuda(number) => match cuda_devices() {
            Err(reason) => Err(DeviceError::NoCuda { reason }),
            Ok(count) if number >= count => Err(DeviceError::NoSuchDevice { number, count }),
            Ok(_) => Ok(Chosen::Cuda(number)),
        },
    }
}

/// The devices that train together; all of one kind.
///
/// # Errors
/// A CUDA device was asked for by name and is not there.
pub fn choose_all(devices: &Devices) -> Result<Vec<Chosen>, DeviceError> {
    devices.all().iter().map(|&device| choose(device)).collect()
}

/// Several devices in words.
#[must_use]
pub fn names(chosen: &[Chosen]) -> String {
    chosen.iter().map(Chosen::to_string).collect::<Vec<_>>().join(" and ")
}

/// Work that runs on whichever backend was chosen.
pub trait Task {
    /// What it comes to.
    type Output;

    /// Does it on one backend.
    fn run<B: Ops>(self, device: &B::Device) -> Self::Output;
}

/// Work that several devices of one backend share.
pub trait SharedTask {
    /// What it comes to.
    type Output;

    /// Does it; there is at least one device.
    fn run<B: Ops>(self, devices: &[B::Device]) -> Self::Output;
}

/// Runs a shared task on devices of one kind, as [`choose_all`] gives them.
pub fn dispatch_all<T: SharedTask>(chosen: &[Chosen], task: T) -> T::Output {
    #[cfg(feature = "cuda")]
    if let Some(Chosen::Cuda(_)) = chosen.first() {
        cuda::keep_choices();
        let number = |chosen: &Chosen| if let Chosen::Cuda(number) = chosen { *number } else { 0 };
        let devices: Vec<_> = chosen.iter().map(number).map(burn::backend::cuda::CudaDevice::new).collect();
        return task.run::<burn::backend::Cuda>(&devices);
    }
    task.run::<Flex>(&vec![burn::backend::flex::FlexDevice; chosen.len()])
}

/// Runs a task on a device that is there.
pub fn dispatch<T: Task>(chosen: Chosen, task: T) -> T::Output {
    match chosen {
        #[cfg(feature = "cuda")]
        Chosen::Cuda(number) => {
            cuda::keep_choices();
            task.run::<burn::backend::Cuda>(&burn::backend::cuda::CudaDevice::new(number))
        }
        #[cfg(not(feature = "cuda"))]
        Chosen::Cuda(_) => task.run::<Flex>(&burn::backend::flex::FlexDevice),
        Chosen::Cpu => task.run::<Flex>(&burn::backend::flex::FlexDevice),
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::{
        path::{Path, PathBuf},
        sync::Once,
    };

    use cubecl_runtime::config::{CubeClRuntimeConfig, RuntimeConfig as _, cache::CacheConfig};
    use cudarc::driver::{result, sys};

    /// Where kernels find the toolkit's headers when they are compiled, beside `CUDA_PATH`.
    const TOOLKITS: [&str; 2] = ["/usr/local/cuda", "/opt/cuda"];

    pub fn devices() -> Result<usize, String> {
        // Asked for first: the driver's functions panic where its library is missing.
        // SAFETY: it only tries to open the library.
        if !unsafe { sys::is_culib_present() } {
            return Err("the NVIDIA driver library is not installed".into());
        }
        result::init().map_err(|error| format!("the NVIDIA driver does not start ({error:?})"))?;
        let count = result::device::get_count().map_err(|error| format!("no device can be counted ({error:?})"))?;
        let count = usize::try_from(count).unwrap_or(0);
        if count == 0 {
            return Err("the machine has none".into());
        }
        if !has_headers() {
            return Err("the CUDA toolkit's headers are missing: install the toolkit, or set CUDA_PATH to it".into());
        }
        Ok(count)
    }

    pub fn memory(number: usize) -> Option<(u64, u64)> {
        // SAFETY: it only tries to open the library.
        if !unsafe { sys::is_culib_present() } {
            return None;
        }
        result::init().ok()?;
        let device = result::device::get(i32::try_from(number).ok()?).ok()?;
        // SAFETY: the device is there. The primary context is the one that the backend works in: where it is in use
        // this counts one user more, and less again below.
        let context = unsafe { result::primary_ctx::retain(device) }.ok()?;
        // SAFETY: the context lives until it is released below; what was current in this thread is so again
        // afterwards.
        let found = unsafe {
            let is_pushed = sys::cuCtxPushCurrent_v2(context).result().is_ok();
            let found = if is_pushed { result::mem_get_info().ok() } else { None };
            if is_pushed {
                let mut popped = std::ptr::null_mut();
                let _ = sys::cuCtxPopCurrent_v2(&raw mut popped);
            }
            let _ = result::primary_ctx::release(device);
            found
        };
        let (free, total) = found?;
        Some((u64::try_from(free).ok()?, u64::try_from(total).ok()?))
    }

    /// Has which kernels were the fastest kept in the user's cache for the next process. Left to itself the backend keeps
    /// that in `target` of whichever Rust project it is run in. Compiled kernels are not kept: the backend does not tell
    /// those of one kind of device from those of another.
    pub fn keep_choices() {
        static SETTLED: Once = Once::new();
        // The backend reads its settings when its first device is used, and takes no others then.
        SETTLED.call_once(|| CubeClRuntimeConfig::set(settings(&crate::supply::user_cache().join("autotune"))));
    }

    fn settings(folder: &Path) -> CubeClRuntimeConfig {
        let mut settings = CubeClRuntimeConfig::default().override_from_env();
        settings.autotune.cache = CacheConfig::File(folder.to_owned());
        settings
    }

    fn has_headers() -> bool {
        let named = std::env::var_os("CUDA_PATH").map(PathBuf::from);
        named
            .iter()
            .map(PathBuf::as_path)
            .chain(TOOLKITS.iter().map(Path::new))
            .any(|path| path.join("include").is_dir())
            || Path::new("/usr/bin/nvcc").exists()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn choices_are_kept_in_the_folder_and_kernels_nowhere() {
            let settings = settings(Path::new("/cache/autotune"));
            assert_eq!(settings.autotune.cache.root(), Path::new("/cache/autotune"));
            assert!(settings.compilation.cache.is_none());
        }
    }
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    pub fn devices() -> Result<usize, String> {
        Err("this program was built without the feature `cuda`".into())
    }

    pub fn memory(_: usize) -> Option<(u64, u64)> {
        None
    }
}
